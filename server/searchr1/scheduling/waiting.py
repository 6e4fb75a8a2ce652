"""Admitted runs that want a turn and have no room for it: each waits on its replica, the oldest run first."""

import heapq
from collections.abc import Mapping

from searchr1.scheduling.placement import Replicas
from searchr1.scheduling.runs import Run, State

NOWHERE = ""
"""Where runs wait while no replica is healthy."""


class Waiting:
    """The lines of waiting runs, one on each replica, and who has waited long enough."""

    def __init__(self, replicas: Replicas, runs: Mapping[str, Run], max_pause_s: float) -> None:
        self._replicas = replicas
        self._runs = runs
        self._max_pause_s = max_pause_s
        self._lines: dict[str, list[tuple[float, str]]] = {}
        self._overdue: list[tuple[float, str]] = []
        self._num = 0

    def __len__(self) -> int:
        return self._num

    @property
    def places(self) -> list[str]:
        """The names of replicas on which runs may wait."""
        return list(self._lines)

    def add(self, run: Run, now: float) -> None:
        """Let a run wait from now on."""
        run.state = State.WAITING
        run.waiting_since = now
        self._num += 1
        heapq.heappush(self._overdue, (self._due_at(run), run.name))
        self._line_up(run)

    def remove(self, run: Run) -> None:
        """Count a run out, before its state changes; its entry goes when it comes to the front."""
        self._num -= 1
        if (home := self._replicas.get(run.replica)) is not None:
            home.num_waiting -= 1
            self._replicas.room_changed(home)

    def first(self, name: str) -> Run | None:
        """Return the run that is first on a replica."""
        line = self._lines.get(name, [])
        while line:
            run = self._runs.get(line[0][1])
            if run is not None and self._waits_on(run, name):
                return run
            heapq.heappop(line)
        self._lines.pop(name, None)
        return None

    def find_homes(self, name: str) -> None:
        """Line those up anew that wait on a replica which has gone, or nowhere."""
        for _, waiting in self._lines.pop(name, []):
            run = self._runs.get(waiting)
            if run is not None and self._waits_on(run, name):
                if (home := self._replicas.get(run.replica)) is not None:
                    home.num_waiting -= 1
                self._line_up(run)

    def overdue(self, now: float) -> Run | None:
        """Return a run that has waited for long enough; it comes again until it waits no more."""
        while self._overdue and self._overdue[0][0] <= now:
            run = self._runs.get(self._overdue[0][1])
            if run is not None and run.state is State.WAITING and self._due_at(run) <= now:
                return run
            heapq.heappop(self._overdue)
        return None

    def _due_at(self, run: Run) -> float:
        return run.waiting_since + self._max_pause_s - run.waited_s

    def _waits_on(self, run: Run, name: str) -> bool:
        return run.state is State.WAITING and (run.replica or NOWHERE) == name

    def _line_up(self, run: Run) -> None:
        """Let a run wait on its replica, or on that with most room where its own has gone."""
        home = self._replicas.get(run.replica)
        if home is None or not home.healthy:
            home = self._replicas.roomiest_of_all()
        run.replica = None if home is None else home.name
        if home is not None:
            home.num_waiting += 1
        heapq.heappush(self._lines.setdefault(run.replica or NOWHERE, []), (run.submitted_at, run.name))
