"""The simulated world: runs that come, take their turns on replicas and search in between, under a policy."""

import heapq
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from loadtests.simulator.arrivals import Searches
from loadtests.simulator.decoding import Request
from loadtests.simulator.rates import EngineParams, EnginePolicy
from loadtests.simulator.replica import Replica
from loadtests.traces import RunTrace

_GATEWAY_S = 0.002
"""Time of a turn outside the engine and the search: the gateway's and the network's."""
_SHARED = "shared prompt"


@dataclass(slots=True, eq=False)
class SimulatedRun:
    """A run on its way."""

    trace: RunTrace
    came_at: float
    tenant: str = "tenant"
    key: str = "key"
    turn: int = 0
    """Turns begun."""
    footprint: int = 0
    replica: int = -1
    admitted_at: float = -1.0
    ended_at: float = -1.0
    was_refused: bool = False
    computed: int = 0
    """Tokens that were in some KV cache once."""
    prompt_tokens: int = 0
    """Prompt tokens of all its turns."""
    cached_tokens: int = 0
    later_prompt_tokens: int = 0
    """Those of turns after the first that were computed before, and could have been found."""
    later_cached_tokens: int = 0
    recomputed_tokens: int = 0
    first_token_at: float = -1.0

    @property
    def name(self) -> str:
        """The run's name."""
        return self.trace.run

    @property
    def latency_s(self) -> float:
        """From its coming to its end."""
        return self.ended_at - self.came_at


class Policy(Protocol):
    """What decides when and where a run takes its turns, by calling ``Simulation.start_turn``."""

    name: str
    engine_policy: EnginePolicy
    tick_s: float | None
    """Seconds between calls of ``tick``; None for none."""

    def begin(self, simulation: "Simulation") -> None:
        """Get to know the world, before anything comes."""
        ...

    def came(self, run: SimulatedRun, now: float) -> None:
        """A run came and wants its first turn."""
        ...

    def turn_ended(self, run: SimulatedRun, now: float) -> None:
        """A run's turn ended, and it searches."""
        ...

    def wants_turn(self, run: SimulatedRun, now: float) -> None:
        """A run has its passages and wants its next turn."""
        ...

    def ended(self, run: SimulatedRun, now: float) -> None:
        """A run ended."""
        ...

    def tick(self, now: float) -> None:
        """Time has passed."""
        ...

    def keeps(self, run: SimulatedRun) -> bool:
        """Whether the engine keeps the KV cache of a run whose turn ends, as an unmodified vLLM never does."""
        ...


@dataclass
class Simulation:
    """One pass of a trace through replicas under a policy."""

    params: EngineParams
    policy: Policy
    num_replicas: int
    searches: Searches
    replicas: list[Replica] = field(default_factory=list)
    runs: list[SimulatedRun] = field(default_factory=list)
    now: float = 0.0
    num_open: int = 0

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._of_request: dict[int, SimulatedRun] = {}
        self._told: list[float | None] = [None] * self.num_replicas
        self.replicas = [
            Replica(self.params, self.policy.engine_policy, self._done, self._keeps) for _ in range(self.num_replicas)
        ]

    def run(self, traces: Sequence[RunTrace], times: Sequence[float], *, tenants: Sequence[str] = ()) -> None:
        """Let the runs come at their times, and go on until all have ended."""
        for number, (trace, at) in enumerate(zip(traces, times, strict=True)):
            who = tenants[number] if tenants else "tenant"
            run = SimulatedRun(trace, at, tenant=who, key=who, footprint=trace.prompt_tokens)
            self.runs.append(run)
            self.after(at, lambda run=run: self.policy.came(run, self.now))  # type: ignore[misc]
        self.num_open = len(self.runs)
        self.policy.begin(self)
        if self.policy.tick_s is not None:
            self.after(self.policy.tick_s, self._tick)
        while self._events and self.num_open:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        if self.num_open:
            raise RuntimeError(f"{self.num_open} runs never ended under {self.policy.name}")

    def after(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), happen))

    def start_turn(self, run: SimulatedRun, replica: int, priority: int = 0) -> None:
        """Send a run's next turn to a replica."""
        if run.turn == 0:
            run.admitted_at = self.now
        turn = run.trace.turns[run.turn]
        run.turn += 1
        run.replica = replica
        request = Request(
            own=run.name,
            prefix=_SHARED,
            prefix_tokens=run.trace.shared_tokens,
            prompt_tokens=run.footprint,
            num_sampled=turn.num_sampled,
            priority=priority,
        )
        self._of_request[id(request)] = run
        self.replicas[replica].submit(request, self.now)
        self.watch(replica)

    def refuse(self, run: SimulatedRun) -> None:
        """Count a run that the policy does not take."""
        run.was_refused = True
        run.ended_at = self.now
        self.num_open -= 1

    def watch(self, replica: int) -> None:
        """Take note of when a replica's steps end, after anything may have changed that."""
        ends_at = self.replicas[replica].ends_at
        if ends_at is not None and ends_at != self._told[replica]:
            self._told[replica] = ends_at
            heapq.heappush(self._events, (ends_at, next(self._numbers), lambda: self._end_span(replica, ends_at)))

    def _end_span(self, replica: int, ends_at: float) -> None:
        if self.replicas[replica].ends_at == ends_at:
            self._told[replica] = None
            self.replicas[replica].end_span(self.now)
            self.watch(replica)

    def _keeps(self, request: Request) -> bool:
        run = self._of_request[id(request)]
        return run.turn < len(run.trace.turns) and self.policy.keeps(run)

    def _done(self, request: Request, now: float) -> None:
        run = self._of_request.pop(id(request))
        run.prompt_tokens += request.prompt_tokens
        run.cached_tokens += request.cached_tokens
        if run.turn == 1:
            run.first_token_at = request.first_token_at
        else:
            run.later_prompt_tokens += run.computed
            run.later_cached_tokens += min(request.cached_tokens, run.computed)
        run.recomputed_tokens += max(0, run.computed - request.cached_tokens) + request.recomputed_tokens
        run.computed = request.num_computed
        turn = run.trace.turns[run.turn - 1]
        run.footprint += request.num_sampled
        if run.turn == len(run.trace.turns):
            run.ended_at = now
            self.num_open -= 1
            self.policy.ended(run, now)
            return
        self.policy.turn_ended(run, now)
        latency_s = self.searches.latency_s(turn.query, now) + _GATEWAY_S
        self.after(latency_s, lambda: self._come_back(run, turn.passage_tokens))

    def _come_back(self, run: SimulatedRun, passage_tokens: int) -> None:
        run.footprint += passage_tokens
        self.policy.wants_turn(run, self.now)

    def _tick(self) -> None:
        self.policy.tick(self.now)
        assert self.policy.tick_s is not None
        self.after(self.policy.tick_s, self._tick)
