"""What always holds of the scheduler: budgets, nobody lost or started twice, bounds, no idle room."""

import math
from collections import Counter
from collections.abc import Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from searchr1.scheduling.decisions import Admit, Decision, Expire, Pause, Refuse, Resume
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.runs import State
from searchr1.scheduling.scheduler import Scheduler

MAX_PAUSE_S = 20.0
MAX_QUEUED, MAX_QUEUED_PER_TENANT, MAX_RUNS = 12, 8, 14
CHOICE = st.integers(0, 10**6)


class SchedulerMachine(RuleBasedStateMachine):
    """Any order of legal inputs, beside a model that follows the decisions alone."""

    @initialize(
        capacities=st.lists(st.one_of(st.integers(500, 3000), st.none()), min_size=1, max_size=3),
        block_tokens=st.sampled_from([1, 16, 128]),
    )
    def start(self, capacities: list[int | None], block_tokens: int) -> None:
        self.block_tokens = block_tokens
        self.scheduler = Scheduler(
            SchedulingOptions(
                max_runs=MAX_RUNS,
                max_queued=MAX_QUEUED,
                max_queued_per_tenant=MAX_QUEUED_PER_TENANT,
                max_pause_s=MAX_PAUSE_S,
                first_growth_tokens=150,
            )
        )
        self.now = 0.0
        self.num_submitted = 0
        self.capacities = {f"replica-{number}": capacity for number, capacity in enumerate(capacities)}
        self.healthy = dict.fromkeys(self.capacities, True)
        self.states: dict[str, State] = {}
        self.tokens: dict[str, int] = {}
        self.deadlines: dict[str, float] = {}
        self.waiting_since: dict[str, float] = {}
        self.waited_s: dict[str, float] = {}
        for name, capacity in self.capacities.items():
            self.change(name, capacity, healthy=True)

    def change(self, name: str, capacity: int | None, *, healthy: bool) -> None:
        decisions = self.scheduler.replica_changed(
            name, capacity, healthy=healthy, block_tokens=self.block_tokens, now=self.now
        )
        self.take(decisions)

    def in_blocks(self, tokens: int) -> int:
        return math.ceil(tokens / self.block_tokens) * self.block_tokens

    def take(self, decisions: Sequence[Decision], *, by_age: bool = False) -> None:
        """Follow decisions in the model; each must be possible for the run that it names."""
        filled = set()
        for decision in decisions:
            match decision:
                case Admit(run, replica):
                    assert self.states[run] is State.QUEUED
                    assert self.healthy[replica]
                    self.states[run] = State.TURN
                    filled.add(replica)
                case Resume(run, replica):
                    if self.states[run] is State.WAITING:
                        assert self.healthy[replica]
                        self.waited_s[run] += self.now - self.waiting_since[run]
                        filled.add(replica)
                    else:
                        assert self.states[run] is State.AWAY
                    self.states[run] = State.TURN
                case Pause(run):
                    assert self.states[run] in (State.TURN, State.AWAY)
                    self.states[run] = State.PAUSED
                case Expire(run):
                    assert self.states.pop(run) is State.QUEUED
                    assert self.deadlines[run] <= self.now
                case Refuse(run, reason, retry_after_s):
                    assert self.states.pop(run) is State.QUEUED
                    assert (reason == "too_large") == (retry_after_s is None)
        for replica in () if by_age else filled:
            counted = self.scheduler._replicas[replica]
            assert counted.room_tokens >= 0 or len(counted.runs) == 1

    def some(self, choice: int, *states: State) -> str | None:
        runs = sorted(run for run, state in self.states.items() if state in states)
        return runs[choice % len(runs)] if runs else None

    @rule(
        tenant=st.sampled_from("ab"),
        key=st.sampled_from("kl"),
        tokens=st.integers(1, 900),
        shared=st.integers(0, 900),
        prefix=st.sampled_from([None, "p", "q"]),
        patience_s=st.one_of(st.none(), st.floats(0, 30)),
        weight=st.sampled_from([0.5, 1.0, 3.0]),
    )
    def submit(
        self,
        tenant: str,
        key: str,
        tokens: int,
        shared: int,
        prefix: str | None,
        patience_s: float | None,
        weight: float,
    ) -> None:
        run = f"run-{self.num_submitted:04}"
        self.num_submitted += 1
        self.states[run], self.tokens[run], self.waited_s[run] = State.QUEUED, tokens, 0.0
        deadline_at = None if patience_s is None else self.now + patience_s
        self.deadlines[run] = float("inf") if deadline_at is None else deadline_at
        self.take(
            self.scheduler.submit(
                run,
                tenant=tenant,
                key=key,
                prompt_tokens=tokens,
                prefix=prefix,
                prefix_tokens=shared,
                deadline_at=deadline_at,
                tenant_weight=weight,
                now=self.now,
            )
        )

    @rule(choice=CHOICE, grown=st.integers(0, 300))
    def end_turn(self, choice: int, grown: int) -> None:
        if run := self.some(choice, State.TURN):
            self.tokens[run] += grown
            self.states[run] = State.AWAY
            self.take(self.scheduler.turn_ended(run, self.tokens[run], self.now))

    @rule(choice=CHOICE, grown=st.integers(0, 500))
    def want_turn(self, choice: int, grown: int) -> None:
        if run := self.some(choice, State.AWAY, State.PAUSED):
            self.tokens[run] += grown
            could = self.states[run] is State.AWAY
            if not could:
                self.states[run] = State.WAITING
            self.waiting_since[run] = self.now
            decisions = self.scheduler.turn_wanted(run, self.tokens[run], self.now)
            if Pause(run) in decisions:
                self.take([Pause(run)])
                self.states[run] = State.WAITING
                decisions.remove(Pause(run))
            self.take(decisions)
            if could:
                assert self.states[run] in (State.TURN, State.WAITING)

    @rule(choice=CHOICE, grown=st.integers(0, 300))
    def lose_turn(self, choice: int, grown: int) -> None:
        if run := self.some(choice, State.TURN):
            self.tokens[run] += grown
            self.waiting_since[run] = self.now
            self.states[run] = State.AWAY
            first, *decisions = self.scheduler.turn_lost(run, self.tokens[run], self.now)
            assert first.run == run
            assert isinstance(first, Resume) == any(self.healthy.values())
            self.take([first])
            if not isinstance(first, Resume):
                self.states[run] = State.WAITING
            self.take(decisions)

    @rule(choice=CHOICE, was_whole=st.booleans())
    def end(self, choice: int, was_whole: bool) -> None:
        if run := self.some(choice, *State):
            del self.states[run]
            self.take(self.scheduler.ended(run, self.now, was_whole=was_whole))

    @rule(passed_s=st.floats(0.1, 15))
    def let_time_pass(self, passed_s: float) -> None:
        self.now += passed_s
        self.take(self.scheduler.tick(self.now), by_age=True)
        assert not [run for run, state in self.states.items() if self.is_starved(run, state)]
        late = [run for run, state in self.states.items() if state is State.QUEUED and self.deadlines[run] <= self.now]
        assert late == []

    def is_starved(self, run: str, state: State) -> bool:
        if state is not State.WAITING or not any(self.healthy.values()):
            return False
        return self.waited_s[run] + self.now - self.waiting_since[run] > MAX_PAUSE_S + 1e-6

    @rule(choice=CHOICE, capacity=st.one_of(st.integers(300, 3000), st.none()), healthy=st.booleans())
    def change_replica(self, choice: int, capacity: int | None, healthy: bool) -> None:
        name = sorted(self.capacities)[choice % len(self.capacities)]
        self.capacities[name], self.healthy[name] = capacity, healthy
        self.change(name, capacity, healthy=healthy)

    @precondition(lambda self: not self.states)
    @rule()
    def nothing_is_left(self) -> None:
        assert self.scheduler.num_admitted == self.scheduler.num_queued == self.scheduler.num_waiting == 0
        assert all(r.reserved_tokens == r.footprint_tokens == 0 for r in self.scheduler._replicas)

    @invariant()
    def the_model_agrees(self) -> None:
        assert {run: self.scheduler.state(run) for run in self.states} == self.states
        assert self.scheduler.num_admitted + self.scheduler.num_queued == len(self.states)
        assert self.scheduler.num_waiting == sum(state is State.WAITING for state in self.states.values())

    @invariant()
    def bounds_hold(self) -> None:
        assert self.scheduler.num_queued <= MAX_QUEUED
        assert all(self.scheduler._entrance.num_of(tenant) <= MAX_QUEUED_PER_TENANT for tenant in "ab")
        assert self.scheduler.num_admitted <= MAX_RUNS

    @invariant()
    def charges_add_up(self) -> None:
        for replica in self.scheduler._replicas:
            runs = [self.scheduler._runs[run] for run in replica.runs]
            assert all(run.holds_room and run.replica == replica.name for run in runs)
            shared = sum(tokens for _, tokens in replica.prefixes.values())
            assert sum(count for count, _ in replica.prefixes.values()) == sum(run.prefix is not None for run in runs)
            of_prefix = {run.name: run.prefix_tokens // self.block_tokens * self.block_tokens for run in runs}
            held = {run.name: self.in_blocks(run.footprint_tokens) - of_prefix[run.name] for run in runs}
            claimed = {
                run.name: self.in_blocks(run.footprint_tokens + run.growth_tokens) - of_prefix[run.name] for run in runs
            }
            leaving = [run.name for run in runs if run.will_pause]
            assert replica.leaving_tokens == sum(claimed[run] for run in leaving)
            assert replica.footprint_tokens == shared + sum(held.values()) - sum(held[run] for run in leaving)
            assert replica.reserved_tokens == shared + sum(claimed.values())
        tenants = Counter(dict.fromkeys("ab", 0))
        for found in self.scheduler._runs.values():
            tenants[found.ticket.tenant] += found.claimed_tokens
        assert self.scheduler._crowding._held_tokens == {name: tokens for name, tokens in tenants.items() if tokens}
        holders = {run for replica in self.scheduler._replicas for run in replica.runs}
        assert holders == {run for run, state in self.states.items() if state in (State.TURN, State.AWAY)}

    @invariant()
    def no_room_is_idle(self) -> None:
        scheduler, replicas = self.scheduler, list(self.scheduler._replicas)
        for replica in replicas:
            first = scheduler._waiting.first(replica.name)
            assert first is None or not scheduler._ledger.fits(first, replica)
            waiting = [run for run in scheduler._runs.values() if run.state is State.WAITING]
            assert replica.num_waiting == sum(run.replica == replica.name for run in waiting)
            assert first is None or first.submitted_at == min(
                r.submitted_at for r in waiting if r.replica == replica.name
            )
        places = [replica for replica in replicas if replica.is_open]
        best = scheduler._replicas.roomiest()
        assert (best is None) == (not places)
        assert best is None or best.room_tokens == max(replica.room_tokens for replica in places)
        assert sum(replica.is_kept for replica in replicas) <= (scheduler._entrance.next is not None)
        if scheduler.num_admitted == MAX_RUNS:
            return
        crowding = scheduler._crowding.tenant(self.now)
        following, head = scheduler._entrance.next, scheduler._entrance.head(crowding)
        for queued in (following, head):
            if queued is not None and best is not None:
                assert self.in_blocks(scheduler._ledger.need_tokens(queued)) > best.room_tokens
                assert best.runs
        assert following is not None or head is None or not places
        kept = [replica for replica in replicas if replica.is_kept and replica.healthy and not replica.num_waiting]
        assert not any(following is not None and scheduler._ledger.fits(following, replica) for replica in kept)

    @invariant()
    def an_overrun_is_answered(self) -> None:
        """Whatever is too much has been told to pause, but for runs that may not be paused any more, or the last."""
        for replica in self.scheduler._replicas:
            staying = [self.scheduler._runs[run] for run in replica.runs if not self.scheduler._runs[run].will_pause]
            if replica.healthy and replica.is_overrun and len(replica.runs) > 1:
                assert all(run.waited_s >= MAX_PAUSE_S for run in staying)


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=50)
