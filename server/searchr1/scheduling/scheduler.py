"""Scheduling as a pure state machine: no I/O, no clock, no tasks. Times are arguments, seconds on any one clock.

Rules
-----
1. A run holds room on one replica while the engine writes its turn and while it searches: its footprint in tokens, and
   a reserve for the growth that ended runs let one expect of it (``growth.py``, ``ledger.py``). A new run starts where
   its prompt and its reserve find room; a replica without runs takes any. Where capacities are unknown, ``max_runs``
   alone bounds. Of a replica that other schedulers use too, only a part is there for its runs (``shares.py``).
2. A run stays on its replica. A new one goes to the replica with most room, or to one that holds its prefix, as far as
   the prefix is worth the difference (``placement.py``).
3. An admitted run that holds room takes its next turn at once. Rooms are only overcommitted by growth, and by turns
   that go on elsewhere because their replica failed.
4. Where footprints alone overrun a replica, runs are paused until what is left fits with its reserve: of those with
   fewest turns, the smallest (``ledger.py``). A run that searches gives its room back at once, one that writes does at
   the end of its turn.
5. A paused run that wants its turn waits for room on its replica, the oldest run first, and no new run starts there
   meanwhile (``waiting.py``). Another replica takes it over where its own has gone, or at a tick, if there is room.
   After ``max_pause_s`` of waiting a run takes its turn in any case, and is never paused again.
6. New runs start in the order of deficit round robin over tenants and, inside, keys, by the tokens that they need
   (``fair_queue.py``). Of one key's runs the first is the one that came first, where a run that needs more counts as
   one that came later, by ``wait_s_per_token``. For a run whose turn it is and that finds no room, the replica with
   most room is kept: nobody passes it there, and those behind it may start elsewhere (``entrance.py``). A tenant that
   holds most of all room starts no more runs while other tenants are about (``crowding.py``).
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
| | submit | nobody is queued, room, and its tenant crowds nobody out | turn | Admit |
| | submit | no room, the queue or the tenant's part of it is full | | Refuse |
| | submit | else | queued | Moved |
| queued | room, and its turn | | turn | Admit |
| queued | tick | past its deadline | | Expire |
| queued | tick | another place than was told | queued | Moved |
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

from searchr1.errors import IllegalInputError
from searchr1.scheduling.crowding import Crowding
from searchr1.scheduling.decisions import Admit, Decision, Expire, Moved, Pause, RefusalReason, Refuse, Resume
from searchr1.scheduling.endings import Endings
from searchr1.scheduling.entrance import Entrance
from searchr1.scheduling.fair_queue import Ticket
from searchr1.scheduling.growth import Growth, LearnedGrowth
from searchr1.scheduling.ledger import Ledger
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.placement import Replica, Replicas
from searchr1.scheduling.runs import Run, State
from searchr1.scheduling.shares import Demand, Part
from searchr1.scheduling.waiting import NOWHERE, Waiting

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
        self._max_runs = self.options.max_runs
        self._runs: dict[str, Run] = {}
        self._replicas = Replicas(self.options.prefix_worth)
        self._crowding = Crowding(self.options.tenant_room_share)
        self._ledger = Ledger(self._replicas, self._growth, self._runs, self._crowding)
        self._entrance = Entrance(self.options, self._replicas, self._ledger, self._runs)
        self._waiting = Waiting(self._replicas, self._runs, self.options.max_pause_s)
        self._endings = Endings()
        self._num_refused = 0

    @property
    def num_queued(self) -> int:
        """Number of runs that wait for their start."""
        return len(self._entrance)

    @property
    def num_admitted(self) -> int:
        """Number of runs that started and have not ended."""
        return len(self._runs) - self.num_queued

    @property
    def num_waiting(self) -> int:
        """Number of admitted runs that want a turn and have no room for it."""
        return len(self._waiting)

    @property
    def largest_tokens(self) -> int:
        """Tokens that the largest replica's KV cache holds, and so the longest prompt; 0 where none has told."""
        return self._replicas.largest_tokens

    @property
    def demand(self) -> Demand:
        """What the runs hold and want."""
        return Demand(
            num_admitted=self.num_admitted,
            num_runs=len(self._runs),
            charged_tokens={replica.name: replica.reserved_tokens for replica in self._replicas},
            unplaced_tokens=sum(self._ledger.need_tokens(run) for run in self._runs.values() if not run.holds_room),
        )

    def priority(self, run: str) -> int:
        """Return the engine's priority for the turn of a run (rule 8); lower goes first."""
        found = self._runs[run]
        return int(found.submitted_at * 1000) - min(found.turn, _MAX_PRIORITY_TURN) * _PRIORITY_OF_A_TURN

    def state(self, run: str) -> State | None:
        """Return where a run stands; None for one that is not here."""
        found = self._runs.get(run)
        return None if found is None else found.state

    def would_take(self, tenant: str) -> bool:
        """Return whether a run of a tenant would be taken now, if only into the queue, were it small enough."""
        return self._may_start() or not self._entrance.is_full(tenant)

    def refusal(self, tenant: str, now: float) -> Refuse | None:
        """Return what a run of a tenant would be told now that is not taken; it is counted as refused."""
        full = None if self._may_start() else self._entrance.is_full(tenant)
        return None if full is None else self._refuse("", tenant, full, now)

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
        growth_tokens: int | None = None,
        tenant_weight: float = 1.0,
    ) -> list[Decision]:
        """Take a new run, whose prompt begins with ``prefix_tokens`` tokens that other runs of ``prefix`` share.

        ``growth_tokens`` is what it grows by, where the caller knows better than from runs that ended.
        """
        if run in self._runs:
            raise IllegalInputError(f"run {run} was submitted twice")
        if 0 < self._replicas.largest_tokens < prompt_tokens:
            return [Refuse(run, "too_large", None)]
        may_start = self._may_start()
        if not may_start and (full := self._entrance.is_full(tenant)):
            return [self._refuse(run, tenant, full, now)]
        expected = self._growth.remaining_tokens(run, 1) if growth_tokens is None else growth_tokens
        cost = max(1, prompt_tokens + expected)
        ticket = Ticket(run, tenant, key, cost, tenant_weight, rank=now + self.options.wait_s_per_token * cost)
        shared = min(prefix_tokens, prompt_tokens) if prefix is not None else 0
        taken = Run(run, ticket, now, deadline_at, prefix, shared, prompt_tokens, growth_tokens)
        self._crowding.saw(tenant, now)
        if may_start and self._crowding.tenant(now) != tenant and (replica := self._ledger.place(taken)):
            self._runs[run] = taken
            return [self._admit(taken, replica)]
        if full := self._entrance.is_full(tenant):
            return [self._refuse(run, tenant, full, now)]
        self._runs[run] = taken
        return [Moved(run, self._entrance.add(taken)), *self._start(now)]

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
            self._waiting.add(found, now)
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
            self._waiting.add(found, now)
        return [*decisions, *self._start(now)]

    def ended(
        self, run: str, now: float, *, footprint_tokens: int | None = None, was_whole: bool = True
    ) -> list[Decision]:
        """Forget a run, wherever it stands. One that was not whole (cancelled, failed) teaches nothing."""
        found = self._runs.pop(run, None)
        if found is None:
            raise IllegalInputError(f"run {run} ended, which is not here")
        self._crowding.saw(found.ticket.tenant, now)
        if found.state is State.QUEUED:
            self._entrance.remove(found)
            return self._start(now)
        if found.holds_room:
            self._ledger.release(found)
        elif found.state is State.WAITING:
            self._waiting.remove(found)
        if was_whole:
            self._growth.learn(found.footprints, footprint_tokens or found.footprint_tokens)
        self._endings.count(now)
        self._num_refused = max(0, self._num_refused - 1)
        return self._start(now)

    def replica_changed(
        self,
        name: str,
        capacity_tokens: int | None,
        *,
        healthy: bool,
        now: float,
        block_tokens: int = 1,
        part: Part | None = None,
    ) -> list[Decision]:
        """Add a replica, or change its capacity (None: unknown) or its health. One that is not healthy gets no run.

        ``block_tokens`` are those of one block of its KV cache, of which each run holds whole ones. ``part`` is what of
        the capacity these runs may use, where other schedulers' runs use it too.
        """
        replica = self._replicas.change(name, capacity_tokens, healthy=healthy, block_tokens=block_tokens, part=part)
        self._crowding.capacity_changed(self._replicas.healthy_tokens)
        decisions: list[Decision] = []
        if healthy:
            decisions = self._pause_overrun(replica)
        else:
            searching = [self._runs[run] for run in sorted(replica.runs) if self._runs[run].state is State.AWAY]
            decisions = [self._pause(run) for run in searching]
            if not replica.runs:
                self._ledger.forget(name)
                self._replicas.drop(name)
        self._waiting.find_homes(NOWHERE if healthy else name)
        decisions += self._start(now)
        return [*decisions, *self._resume_elsewhere(now)] if healthy else decisions

    def runs_limited(self, max_runs: int, now: float) -> list[Decision]:
        """Take another bound of admitted runs, in place of ``options.max_runs``; those that are admitted stay."""
        self._max_runs = max_runs
        return self._start(now)

    def tick(self, now: float) -> list[Decision]:
        """Look at the clock: deadlines, waits that are long enough, and places in the queue. Once a second will do."""
        decisions: list[Decision] = []
        for expired in self._entrance.expired(now):
            del self._runs[expired.name]
            decisions.append(Expire(expired.name))
        decisions += [*self._resume_overdue(now), *self._start(now), *self._resume_elsewhere(now)]
        return decisions + [Moved(run.name, run.place or 0) for run in self._entrance.moved()]

    def _expect(self, run: str, *states: State) -> Run:
        found = self._runs.get(run)
        if found is None or found.state not in states:
            stands = "is not here" if found is None else f"is {found.state.value}"
            raise IllegalInputError(f"run {run} {stands}, not {' or '.join(state.value for state in states)}")
        return found

    def _may_start(self) -> bool:
        """Return whether a new run would start before all others, if it found room."""
        return not self.num_queued and self._has_slot()

    def _has_slot(self) -> bool:
        return self._max_runs is None or self.num_admitted < self._max_runs

    def _refuse(self, run: str, tenant: str, reason: RefusalReason, now: float) -> Refuse:
        """Refuse a run. Whoever was refused before is taken to come back, so that not all come back at once."""
        num_queued = self.num_queued
        if reason == "tenant_queue_full":
            num_queued = self._entrance.num_of(tenant) * max(1, self._entrance.num_tenants)
        num_before = self._num_refused + num_queued
        self._num_refused = min(self._num_refused + 1, 4 * max(1, self.num_admitted))
        return Refuse(run, reason, self._endings.retry_after_s(num_before, now, self.num_admitted))

    def _place_again(self, run: Run) -> Replica | None:
        """Return a replica with room for a run that has begun: its own before others."""
        home = self._replicas.get(run.replica)
        return home if home is not None and self._ledger.fits(run, home) else self._ledger.place(run)

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
        for name in self._waiting.places:
            replica = self._replicas.get(name)
            while (run := self._waiting.first(name)) and replica is not None and self._ledger.fits(run, replica):
                decisions.append(self._resume(run, replica, now))
        while self._has_slot() and (taken := self._entrance.take(self._crowding.tenant(now))):
            decisions.append(self._admit(*taken))
        return decisions

    def _resume_elsewhere(self, now: float) -> list[Decision]:
        """Let runs go on that wait first on their replicas, where others have room."""
        decisions: list[Decision] = []
        for name in self._waiting.places:
            while (run := self._waiting.first(name)) and (replica := self._ledger.place(run)):
                decisions.append(self._resume(run, replica, now))
        return decisions

    def _resume(self, run: Run, replica: Replica, now: float) -> Resume:
        self._waiting.remove(run)
        run.waited_s += now - run.waiting_since
        self._ledger.charge(run, replica)
        return self._begin_turn(run)

    def _resume_overdue(self, now: float) -> list[Decision]:
        decisions: list[Decision] = []
        while run := self._waiting.overdue(now):
            replica = self._place_again(run) or self._replicas.roomiest_of_all()
            if replica is None:
                break
            decisions.append(self._resume(run, replica, now))
            run.waited_s = max(run.waited_s, self.options.max_pause_s)
            decisions += self._pause_overrun(replica)
        return decisions
