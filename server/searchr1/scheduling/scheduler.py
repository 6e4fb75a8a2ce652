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
5. A paused run that wants its turn waits for room, on any replica. Such runs go first, the oldest first, and before all
   new ones. After ``max_pause_s`` of waiting a run takes its turn in any case, and is never paused again.
6. New runs start in the order of deficit round robin over tenants and, inside, keys, by the tokens that they need
   (``fair_queue.py``). Nobody passes the run whose turn it is; if there is room for it, it starts.
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
| | submit | nobody waits, room | turn | Admit |
| | submit | no room, the queue or the tenant's part of it is full | | Refuse |
| | submit | else | queued | Moved |
| queued | its turn and room | | turn | Admit |
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
| waiting | room, and none older waits | | turn | Resume |
| waiting | tick | has waited for ``max_pause_s`` | turn | Resume |
| any | ended | | | |

Costs: O(log n) for each input and each decision, in runs and replicas; ``tick`` goes through the queue for the places,
and a replica that goes, through its runs. A refusal touches two numbers.
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
        self._waiting: list[tuple[float, str]] = []
        self._overdue: list[tuple[float, str]] = []
        self._num_waiting = 0
        self._endings = Endings()
        self._num_refused = 0

    @property
    def num_queued(self) -> int:
        """Number of runs that wait for their start."""
        return len(self._queue)

    @property
    def num_admitted(self) -> int:
        """Number of runs that started and have not ended."""
        return len(self._runs) - len(self._queue)

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
        may_start = not len(self._queue) and not self._num_waiting and self._has_slot()
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
        taken.place = self._queue.place(ticket)
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
        replica = self._place(found) or self._replicas.roomiest()
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
            self._queue.remove(found.ticket)
            return self._start(now)
        if found.holds_room:
            self._ledger.release(found)
        elif found.state is State.WAITING:
            self._num_waiting -= 1
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
        return [*decisions, *self._start(now)]

    def tick(self, now: float) -> list[Decision]:
        """Look at the clock: deadlines, waits that are long enough, and places in the queue. Once a second will do."""
        decisions: list[Decision] = [*self._expire(now), *self._resume_overdue(now), *self._start(now)]
        for ticket, place in self._queue.places():
            queued = self._runs[ticket.run]
            if queued.place != place:
                queued.place = place
                decisions.append(Moved(ticket.run, place))
        return decisions

    def _expect(self, run: str, *states: State) -> Run:
        found = self._runs.get(run)
        if found is None or found.state not in states:
            stands = "is not here" if found is None else f"is {found.state.value}"
            raise IllegalInputError(f"run {run} {stands}, not {' or '.join(state.value for state in states)}")
        return found

    def _has_slot(self) -> bool:
        return self.options.max_runs is None or self.num_admitted < self.options.max_runs

    def _full_queue(self, tenant: str) -> RefusalReason | None:
        if len(self._queue) >= self.options.max_queued:
            return "queue_full"
        return "tenant_queue_full" if self._queue.num_of(tenant) >= self.options.max_queued_per_tenant else None

    def _refuse(self, run: str, tenant: str, reason: RefusalReason, now: float) -> Refuse:
        """Refuse a run. Whoever was refused before is taken to come back, so that not all come back at once."""
        num_before = self._num_refused + (
            len(self._queue) if reason == "queue_full" else self._queue.num_of(tenant) * self._queue.num_tenants
        )
        self._num_refused = min(self._num_refused + 1, 4 * max(1, self.num_admitted))
        return Refuse(run, reason, self._endings.retry_after_s(num_before, now, self.num_admitted))

    def _place(self, run: Run) -> Replica | None:
        return self._replicas.place(self._ledger.need_tokens(run), run.prefix, run.prefix_tokens, run.replica)

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
        heapq.heappush(self._waiting, (run.submitted_at, run.name))
        heapq.heappush(self._overdue, (self._due_at(run), run.name))

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
        while (waiting := self._oldest_waiting()) and (replica := self._place(waiting)):
            decisions.append(self._resume(waiting, replica, now))
        while not self._num_waiting and self._has_slot() and (ticket := self._queue.head()):
            run = self._runs[ticket.run]
            replica_for_new = self._place(run)
            if replica_for_new is None:
                break
            self._queue.take()
            decisions.append(self._admit(run, replica_for_new))
        return decisions

    def _oldest_waiting(self) -> Run | None:
        while self._waiting:
            run = self._runs.get(self._waiting[0][1])
            if run is not None and run.state is State.WAITING:
                return run
            heapq.heappop(self._waiting)
        return None

    def _resume(self, run: Run, replica: Replica, now: float) -> Resume:
        self._num_waiting -= 1
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
            replica = self._place(run) or self._replicas.roomiest()
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
                self._queue.remove(ticket)
                del self._runs[name]
                decisions.append(Expire(name))
        return decisions
