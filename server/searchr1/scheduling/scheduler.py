"""Scheduling as a pure state machine: no I/O, no clock, no tasks. Times are arguments, seconds on any one clock.

Rules
-----
1. A run holds room on one replica while the engine writes its turn and while it searches: its footprint in tokens, and
   a reserve for the growth that ended runs let one expect of it (``growth.py``, ``ledger.py``). A new run starts where
   its prompt and its reserve find room; a replica without runs takes any. Where capacities are unknown, ``max_runs``
   alone bounds.
2. A run stays on its replica. A new one goes to the replica with most room, or to one that holds its prefix, as far as
   the prefix is worth the difference (``placement.py``).
3. An admitted run that holds room takes its next turn at once. Rooms are only overcommitted by growth, and by turns
   that go on elsewhere because their replica failed.
4. Where footprints alone overrun a replica, runs are paused until what is left fits with its reserve: of those with
   fewest turns, the smallest (``ledger.py``). A run that searches gives its room back at once, one that writes does at
   the end of its turn.
5. A paused run that wants its turn waits for room on its replica, the oldest run first, and no new run starts there
   meanwhile. Another replica takes it over where its own has gone, or at a tick, if there is room. After
   ``max_pause_s`` of waiting a run takes its turn in any case, and is never paused again.
6. New runs start in the order of deficit round robin over tenants and, inside, keys, by the tokens that they need
   (``fair_queue.py``). For a run whose turn it is and that finds no room, the replica with most room is kept: nobody
   passes it there, and those behind it may start elsewhere.
7. The queue is bounded, in all and for each tenant. A run beyond the bound is refused, with the time after which the
   measured rate of endings makes room. A queued run whose deadline passes expires; later deadlines are the caller's.
8. On the engine later turns go first, then runs that were submitted earlier (``priority``; as in vLLM, lower numbers
   go first).

Transitions
-----------
What the table does not have raises ``IllegalInputError`` and changes nothing. Every input may also let others start or
go on (rules 5 and 6); those decisions come last.

| state | input | condition | next state | decision |
|---|---|---|---|---|
| | submit | prompt larger than every replica | | Refuse too_large |
| | submit | nobody is queued, room | turn | Admit |
| | submit | no room, the queue or the tenant's part of it is full | | Refuse |
| | submit | else | queued | Moved |
| queued | room, and its turn | | turn | Admit |
| queued | tick | past its deadline | | Expire |
| queued | tick | another place than was told | queued | Moved |
| turn | turn_grew | | turn | |
| turn | turn_ended | | away | |
| turn | turn_ended | it is to pause, or its replica is gone | paused | Pause |
| turn | turn_lost | a replica is healthy | turn | Resume |
| turn | turn_lost | none is | waiting | Pause |
| away | turn_wanted | | turn | Resume |
| away | turn_wanted | by which it overruns, and is the one to pause | waiting | Pause |
| away | overrun by any run, or its replica goes | | paused | Pause |
| paused | turn_wanted | | waiting | |
| waiting | room, and none older waits there | | turn | Resume |
| waiting | tick | room elsewhere, or has waited for ``max_pause_s`` | turn | Resume |
| any | ended | | | |

Costs: O(log n) in runs for each input and each decision, and a look at each replica on which runs wait; ``tick`` goes
through the queue for the places, and a replica that goes, through its runs. A refusal touches two numbers.
"""

import heapq

from searchr1.errors import IllegalInputError
from searchr1.scheduling.decisions import Admit, Decision, Expire, Moved, Pause, RefusalReason, Refuse, Resume
from searchr1.scheduling.endings import Endings
from searchr1.scheduling.fair_queue import FairQueue, Ticket
from searchr1.scheduling.growth import Growth, LearnedGrowth
from searchr1.scheduling.ledger import Ledger
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.placement import Replica, Replicas
from searchr1.scheduling.runs import Run, State

_MAX_PRIORITY_TURN = 255
_PRIORITY_OF_A_TURN = 2**43
"""Milliseconds of age that a turn outweighs, so that all numbers stay below 2**53 and survive any JSON reader."""
_NOWHERE = ""
"""Where runs wait while no replica is healthy."""


class Scheduler:
    """The runs of one gateway on their way through its replicas.

    A caller submits a run and waits for its ``Admit``, sends the first turn with ``priority``, says ``turn_ended`` when
    a search begins and ``turn_wanted`` when the next prompt is ready, waits for its ``Resume``, and says ``ended``
    however the run ends. The decisions of any call may name other runs, too: each goes to the run that it names.
    """

    def __init__(self, options: SchedulingOptions | None = None, *, growth: Growth | None = None) -> None:
        """``growth`` is learned from runs that end, unless the caller knows better."""
        self.options = options or SchedulingOptions()
        self._growth = growth or LearnedGrowth(
            quantile=self.options.growth_quantile,
            first_tokens=self.options.first_growth_tokens,
        )
        self._runs: dict[str, Run] = {}
        self._replicas = Replicas(self.options.prefix_worth)
        self._ledger = Ledger(self._replicas, self._growth, self._runs)
        self._queue = FairQueue()
        self._deadlines: list[tuple[float, str, Ticket]] = []
        self._next: Run | None = None
        self._kept: str | None = None
        self._waiting: dict[str, list[tuple[float, str]]] = {}
        self._overdue: list[tuple[float, str]] = []
        self._num_waiting = 0
        self._endings = Endings()
        self._num_refused = 0

    @property
    def num_queued(self) -> int:
        """Number of runs that wait for their start."""
        return len(self._queue) + (self._next is not None)

    @property
    def num_admitted(self) -> int:
        """Number of runs that started and have not ended."""
        return len(self._runs) - self.num_queued

    @property
    def num_waiting(self) -> int:
        """Number of admitted runs that want a turn and have no room for it."""
        return self._num_waiting

    def priority(self, run: str) -> int:
        """Return the engine's priority for the turn of a run (rule 8); lower goes first."""
        found = self._runs[run]
        return int(found.submitted_at * 1000) - min(found.turn, _MAX_PRIORITY_TURN) * _PRIORITY_OF_A_TURN

    def may_begin_turn(self, run: str) -> bool:
        """Return whether a run that searches would take its next turn at once."""
        return self._runs[run].state is State.AWAY

    def state(self, run: str) -> State | None:
        """Return where a run stands; None for one that is not here."""
        found = self._runs.get(run)
        return None if found is None else found.state

    def submit(
        self,
        run: str,
        *,
        tenant: str,
        key: str,
        prompt_tokens: int,
        now: float,
        prefix: str | None = None,
        prefix_tokens: int = 0,
        deadline_at: float | None = None,
        tenant_weight: float = 1.0,
        key_weight: float = 1.0,
    ) -> list[Decision]:
        """Take a new run, whose prompt begins with ``prefix_tokens`` tokens that other runs of ``prefix`` share."""
        if run in self._runs:
            raise IllegalInputError(f"run {run} was submitted twice")
        if 0 < self._replicas.largest_tokens < prompt_tokens:
            return [Refuse(run, "too_large", None)]
        may_start = not self.num_queued and self._has_slot()
        if not may_start and (full := self._full_queue(tenant)):
            return [self._refuse(run, tenant, full, now)]
        cost = max(1, prompt_tokens + self._growth.remaining_tokens(run, 1))
        ticket = Ticket(run, tenant, key, cost, tenant_weight, key_weight)
        shared = min(prefix_tokens, prompt_tokens) if prefix is not None else 0
        taken = Run(run, ticket, now, deadline_at, prefix, shared, prompt_tokens)
        if may_start and (replica := self._place(taken)):
            self._runs[run] = taken
            return [self._admit(taken, replica)]
        if full := self._full_queue(tenant):
            return [self._refuse(run, tenant, full, now)]
        self._runs[run] = taken
        self._queue.add(ticket)
        if deadline_at is not None:
            heapq.heappush(self._deadlines, (deadline_at, run, ticket))
        taken.place = self._queue.place(ticket) + (self._next is not None)
        return [Moved(run, taken.place), *self._start(now)]

    def turn_grew(self, run: str, footprint_tokens: int, now: float) -> list[Decision]:
        """Take the footprint of a run in the middle of its turn. Nobody has to call this."""
        found = self._expect(run, State.TURN)
        self._ledger.grow(found, footprint_tokens)
        return [*self._pause_overrun(self._ledger.replica_of(found)), *self._start(now)]

    def turn_ended(self, run: str, footprint_tokens: int, now: float) -> list[Decision]:
        """Take a run whose turn ended and which searches now."""
        found = self._expect(run, State.TURN)
        self._ledger.grow(found, footprint_tokens)
        found.state = State.AWAY
        replica = self._ledger.replica_of(found)
        if found.will_pause or not replica.healthy:
            return [self._pause(found), *self._start(now)]
        return [*self._pause_overrun(replica), *self._start(now)]

    def turn_lost(self, run: str, footprint_tokens: int, now: float) -> list[Decision]:
        """Take a run whose replica failed in the middle of its turn: the turn goes on at once, on another if need be.

        Whether it does so on the same replica is told by ``replica_changed``, which comes first where that is down.
        """
        found = self._expect(run, State.TURN)
        self._ledger.grow(found, footprint_tokens)
        self._ledger.release(found)
        found.turn -= 1
        found.footprints.pop()
        replica = self._place_again(found) or self._replicas.roomiest_of_all()
        if replica is None:
            self._wait(found, now)
            return [Pause(run)]
        self._ledger.charge(found, replica)
        return [self._begin_turn(found), *self._pause_overrun(replica), *self._start(now)]

    def turn_wanted(self, run: str, footprint_tokens: int, now: float) -> list[Decision]:
        """Take a run that has its passages and wants its next turn: a ``Resume`` is here or comes later."""
        found = self._expect(run, State.AWAY, State.PAUSED)
        decisions: list[Decision] = []
        if found.state is State.AWAY:
            self._ledger.grow(found, footprint_tokens)
            decisions = self._pause_overrun(self._ledger.replica_of(found))
        if found.state is State.AWAY:
            self._ledger.expect(found)
            decisions.append(self._begin_turn(found))
        else:
            found.footprint_tokens = footprint_tokens
            self._wait(found, now)
        return [*decisions, *self._start(now)]

    def ended(
        self, run: str, now: float, *, footprint_tokens: int | None = None, was_whole: bool = True
    ) -> list[Decision]:
        """Forget a run, wherever it stands. One that was not whole (cancelled, failed) teaches nothing."""
        found = self._runs.pop(run, None)
        if found is None:
            raise IllegalInputError(f"run {run} ended, which is not here")
        if found.state is State.QUEUED:
            self._unqueue(found)
            return self._start(now)
        if found.holds_room:
            self._ledger.release(found)
        elif found.state is State.WAITING:
            self._stop_waiting(found)
        if was_whole:
            self._growth.learn(found.footprints, footprint_tokens or found.footprint_tokens)
        self._endings.count(now)
        self._num_refused = max(0, self._num_refused - 1)
        return self._start(now)

    def replica_changed(self, name: str, capacity_tokens: int | None, *, healthy: bool, now: float) -> list[Decision]:
        """Add a replica, or change its capacity (None: unknown) or its health. One that is not healthy gets no run."""
        replica = self._replicas.change(name, capacity_tokens, healthy=healthy)
        decisions: list[Decision] = []
        if healthy:
            decisions = self._pause_overrun(replica)
        else:
            searching = [self._runs[run] for run in sorted(replica.runs) if self._runs[run].state is State.AWAY]
            decisions = [self._pause(run) for run in searching]
            if not replica.runs:
                self._replicas.drop(name)
        self._find_homes(_NOWHERE if healthy else name)
        decisions += self._start(now)
        return [*decisions, *self._resume_elsewhere(now)] if healthy else decisions

    def tick(self, now: float) -> list[Decision]:
        """Look at the clock: deadlines, waits that are long enough, and places in the queue. Once a second will do."""
        decisions: list[Decision] = [*self._expire(now), *self._resume_overdue(now), *self._start(now)]
        decisions += self._resume_elsewhere(now)
        num_before = 0
        if self._next is not None:
            num_before = 1
            decisions += self._tell_place(self._next, 0)
        for ticket, place in self._queue.places():
            decisions += self._tell_place(self._runs[ticket.run], num_before + place)
        return decisions

    def _tell_place(self, run: Run, place: int) -> list[Decision]:
        if run.place == place:
            return []
        run.place = place
        return [Moved(run.name, place)]

    def _expect(self, run: str, *states: State) -> Run:
        found = self._runs.get(run)
        if found is None or found.state not in states:
            stands = "is not here" if found is None else f"is {found.state.value}"
            raise IllegalInputError(f"run {run} {stands}, not {' or '.join(state.value for state in states)}")
        return found

    def _has_slot(self) -> bool:
        return self.options.max_runs is None or self.num_admitted < self.options.max_runs

    def _full_queue(self, tenant: str) -> RefusalReason | None:
        if self.num_queued >= self.options.max_queued:
            return "queue_full"
        return "tenant_queue_full" if self._num_queued_of(tenant) >= self.options.max_queued_per_tenant else None

    def _num_queued_of(self, tenant: str) -> int:
        return self._queue.num_of(tenant) + (self._next is not None and self._next.ticket.tenant == tenant)

    def _refuse(self, run: str, tenant: str, reason: RefusalReason, now: float) -> Refuse:
        """Refuse a run. Whoever was refused before is taken to come back, so that not all come back at once."""
        num_queued = self.num_queued
        if reason == "tenant_queue_full":
            num_queued = self._num_queued_of(tenant) * max(1, self._queue.num_tenants)
        num_before = self._num_refused + num_queued
        self._num_refused = min(self._num_refused + 1, 4 * max(1, self.num_admitted))
        return Refuse(run, reason, self._endings.retry_after_s(num_before, now, self.num_admitted))

    def _place(self, run: Run) -> Replica | None:
        """Return an open replica with room for a run."""
        return self._replicas.place(self._ledger.need_tokens(run), run.prefix, run.prefix_tokens)

    def _fits(self, run: Run, replica: Replica) -> bool:
        return replica.fits(self._ledger.need_tokens(run), run.prefix, run.prefix_tokens)

    def _place_again(self, run: Run) -> Replica | None:
        """Return a replica with room for a run that has begun: its own before others."""
        home = self._replicas.get(run.replica)
        return home if home is not None and self._fits(run, home) else self._place(run)

    def _admit(self, run: Run, replica: Replica) -> Admit:
        self._ledger.charge(run, replica)
        self._begin_turn(run)
        return Admit(run.name, replica.name)

    def _begin_turn(self, run: Run) -> Resume:
        run.state = State.TURN
        run.turn += 1
        run.footprints.append(run.footprint_tokens)
        assert run.replica is not None, "a run that takes its turn has a replica"
        return Resume(run.name, run.replica)

    def _wait(self, run: Run, now: float) -> None:
        run.state = State.WAITING
        run.waiting_since = now
        self._num_waiting += 1
        heapq.heappush(self._overdue, (self._due_at(run), run.name))
        self._line_up(run)

    def _line_up(self, run: Run) -> None:
        """Let a run wait on its replica, or on that with most room where its own has gone."""
        home = self._replicas.get(run.replica)
        if home is None or not home.healthy:
            home = self._replicas.roomiest_of_all()
        run.replica = None if home is None else home.name
        if home is not None:
            home.num_waiting += 1
        heapq.heappush(self._waiting.setdefault(run.replica or _NOWHERE, []), (run.submitted_at, run.name))

    def _find_homes(self, name: str) -> None:
        """Line those up anew that wait on a replica which has gone, or on none."""
        for _, waiting in self._waiting.pop(name, []):
            run = self._runs.get(waiting)
            if run is not None and run.state is State.WAITING and (run.replica or _NOWHERE) == name:
                if (home := self._replicas.get(run.replica)) is not None:
                    home.num_waiting -= 1
                self._line_up(run)

    def _stop_waiting(self, run: Run) -> None:
        """Count a run out of those that wait; its entry goes when it comes to the front."""
        self._num_waiting -= 1
        if (home := self._replicas.get(run.replica)) is not None:
            home.num_waiting -= 1
            self._replicas.room_changed(home)

    def _due_at(self, run: Run) -> float:
        """Return when a run has waited long enough."""
        return run.waiting_since + self.options.max_pause_s - run.waited_s

    def _pause(self, run: Run) -> Pause:
        self._ledger.release(run)
        run.state = State.PAUSED
        return Pause(run.name)

    def _pause_overrun(self, replica: Replica) -> list[Decision]:
        decisions: list[Decision] = []
        if not replica.is_overrun:
            return decisions
        while not replica.is_relieved and (victim := self._ledger.victim(replica, self.options.max_pause_s)):
            if victim.state is State.AWAY:
                decisions.append(self._pause(victim))
            else:
                self._ledger.mark(victim)
        return decisions

    def _start(self, now: float) -> list[Decision]:
        """Let those go on who wait in the middle, then those start whose turn it is, as far as there is room."""
        decisions: list[Decision] = []
        for name in list(self._waiting):
            decisions += self._resume_on(name, now)
        while self._has_slot():
            started = self._start_next() or self._start_head()
            if started is None:
                break
            decisions.append(started)
        return decisions

    def _resume_on(self, name: str, now: float) -> list[Decision]:
        """Let runs go on that wait on a replica, the oldest first."""
        decisions: list[Decision] = []
        replica = self._replicas.get(name)
        while (run := self._first_waiting(name)) and replica is not None and self._fits(run, replica):
            decisions.append(self._resume(run, replica, now))
        return decisions

    def _resume_elsewhere(self, now: float) -> list[Decision]:
        """Let runs go on that wait first on their replicas, where others have room."""
        decisions: list[Decision] = []
        for name in list(self._waiting):
            while (run := self._first_waiting(name)) and (replica := self._place(run)):
                decisions.append(self._resume(run, replica, now))
        return decisions

    def _first_waiting(self, name: str) -> Run | None:
        line = self._waiting.get(name, [])
        while line:
            run = self._runs.get(line[0][1])
            if run is not None and run.state is State.WAITING and (run.replica or _NOWHERE) == name:
                return run
            heapq.heappop(line)
        self._waiting.pop(name, None)
        return None

    def _start_next(self) -> Admit | None:
        """Start the run for which a replica is kept, if it has room there or elsewhere."""
        run = self._next
        if run is None:
            return None
        kept = self._replicas.get(self._kept)
        if kept is None or not kept.healthy:
            self._keep(self._replicas.roomiest())
            kept = self._replicas.get(self._kept)
        if kept is None or kept.num_waiting or not self._fits(run, kept):
            kept = self._place(run)
        if kept is None:
            return None
        self._next = None
        self._keep(None)
        return self._admit(run, kept)

    def _start_head(self) -> Admit | None:
        """Start the run whose turn it is; keep the replica with most room for it, if there is none for it yet."""
        while ticket := self._queue.head():
            run = self._runs[ticket.run]
            replica = self._place(run)
            if replica is not None:
                self._queue.take()
                return self._admit(run, replica)
            if self._next is not None or self._replicas.roomiest() is None:
                return None
            self._queue.take()
            self._next = run
            self._keep(self._replicas.roomiest())
        return None

    def _keep(self, replica: Replica | None) -> None:
        """Keep a replica for the run whose turn it is, in place of the one that was kept."""
        if (kept := self._replicas.get(self._kept)) is not None:
            kept.is_kept = False
            self._replicas.room_changed(kept)
        self._kept = None if replica is None else replica.name
        if replica is not None:
            replica.is_kept = True

    def _unqueue(self, run: Run) -> None:
        if run is self._next:
            self._next = None
            self._keep(None)
        else:
            self._queue.remove(run.ticket)

    def _resume(self, run: Run, replica: Replica, now: float) -> Resume:
        self._stop_waiting(run)
        run.waited_s += now - run.waiting_since
        self._ledger.charge(run, replica)
        return self._begin_turn(run)

    def _resume_overdue(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while self._overdue and self._overdue[0][0] <= now:
            _, name = heapq.heappop(self._overdue)
            run = self._runs.get(name)
            if run is None or run.state is not State.WAITING or self._due_at(run) > now:
                continue
            replica = self._place_again(run) or self._replicas.roomiest_of_all()
            if replica is None:
                heapq.heappush(self._overdue, (now, name))
                break
            decisions.append(self._resume(run, replica, now))
            run.waited_s = max(run.waited_s, self.options.max_pause_s)
            decisions += self._pause_overrun(replica)
        return decisions

    def _expire(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, name, ticket = heapq.heappop(self._deadlines)
            run = self._runs.get(name)
            if run is not None and run.ticket is ticket and run.state is State.QUEUED:
                self._unqueue(run)
                del self._runs[name]
                decisions.append(Expire(name))
        return decisions
