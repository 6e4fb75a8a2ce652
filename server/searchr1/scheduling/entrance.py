"""New runs before their start: the fair queue with its bounds and deadlines, and the run whose turn it is."""

import heapq
from collections.abc import Iterator, Mapping
from typing import Protocol

from searchr1.scheduling.decisions import RefusalReason
from searchr1.scheduling.fair_queue import FairQueue
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.placement import Replica, Replicas
from searchr1.scheduling.runs import Run, State


class Rooms(Protocol):
    """Where runs find room."""

    def place(self, run: Run) -> Replica | None:
        """Return an open replica with room for a run."""
        ...

    def fits(self, run: Run, replica: Replica) -> bool:
        """Return whether a replica has room for a run."""
        ...


class Entrance:
    """Queued runs. For one whose turn it is and that finds no room, the replica with most room is kept.

    Nobody passes it there, and those behind it may start elsewhere.
    """

    def __init__(self, options: SchedulingOptions, replicas: Replicas, rooms: Rooms, runs: Mapping[str, Run]) -> None:
        self._options = options
        self._replicas = replicas
        self._rooms = rooms
        self._runs = runs
        self._queue = FairQueue()
        self._deadlines: list[tuple[float, str, Run]] = []
        self._kept: str | None = None
        self.next: Run | None = None
        """The run for which a replica is kept."""

    def __len__(self) -> int:
        return len(self._queue) + (self.next is not None)

    @property
    def num_tenants(self) -> int:
        """Number of tenants in the fair queue."""
        return self._queue.num_tenants

    def head(self, skipped: str | None = None) -> Run | None:
        """Return the run whose turn comes after ``next``, were there no tenant ``skipped``."""
        ticket = self._queue.head(skipped)
        return None if ticket is None else self._runs[ticket.run]

    def num_of(self, tenant: str) -> int:
        """Return the number of runs that a tenant has queued."""
        return self._queue.num_of(tenant) + (self.next is not None and self.next.ticket.tenant == tenant)

    def is_full(self, tenant: str) -> RefusalReason | None:
        """Return why a run of a tenant cannot be queued, if it cannot."""
        if len(self) >= self._options.max_queued:
            return "queue_full"
        return "tenant_queue_full" if self.num_of(tenant) >= self._options.max_queued_per_tenant else None

    def add(self, run: Run) -> int:
        """Queue a run, and return its place."""
        self._queue.add(run.ticket)
        if run.deadline_at is not None:
            heapq.heappush(self._deadlines, (run.deadline_at, run.name, run))
        run.place = self._queue.place(run.ticket) + (self.next is not None)
        return run.place

    def remove(self, run: Run) -> None:
        """Take a run out, wherever it stands."""
        if run is self.next:
            self.next = None
            self._keep(None)
        else:
            self._queue.remove(run.ticket)

    def expired(self, now: float) -> Iterator[Run]:
        """Take out and return the runs whose deadlines have passed."""
        while self._deadlines and self._deadlines[0][0] <= now:
            _, name, run = heapq.heappop(self._deadlines)
            if self._runs.get(name) is run and run.state is State.QUEUED:
                self.remove(run)
                yield run

    def moved(self) -> Iterator[Run]:
        """Return the runs whose places have changed since they were told; this goes through the queue."""
        places = [(self._runs[ticket.run], place) for ticket, place in self._queue.places()]
        if self.next is not None:
            places = [(self.next, 0), *((run, place + 1) for run, place in places)]
        for run, place in places:
            if run.place != place:
                run.place = place
                yield run

    def take(self, skipped: str | None = None) -> tuple[Run, Replica] | None:
        """Take out a run that may start now, with the replica for it; none of the tenant ``skipped``."""
        return self._take_next() or self._take_head(skipped)

    def _take_next(self) -> tuple[Run, Replica] | None:
        run = self.next
        if run is None:
            return None
        kept = self._replicas.get(self._kept)
        if kept is None or not kept.healthy:
            self._keep(self._replicas.roomiest())
            kept = self._replicas.get(self._kept)
        if kept is None or kept.num_waiting or not self._rooms.fits(run, kept):
            kept = self._rooms.place(run)
        if kept is None:
            return None
        self.remove(run)
        return run, kept

    def _take_head(self, skipped: str | None) -> tuple[Run, Replica] | None:
        run = self.head(skipped)
        if run is None:
            return None
        replica = self._rooms.place(run)
        if replica is not None:
            self._queue.take(skipped)
            return run, replica
        if self.next is not None or self._replicas.roomiest() is None:
            return None
        self._queue.take(skipped)
        self.next = run
        self._keep(self._replicas.roomiest())
        return self.take(skipped)

    def _keep(self, replica: Replica | None) -> None:
        """Keep a replica in place of the one that was kept."""
        if (kept := self._replicas.get(self._kept)) is not None:
            kept.is_kept = False
            self._replicas.room_changed(kept)
        self._kept = None if replica is None else replica.name
        if replica is not None:
            replica.is_kept = True
