"""The simulator against the real engine: the same runs and searches, at the rates that were measured of it."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from loadtests.agents.playing import arrival_times_s
from loadtests.agents.result import Result
from loadtests.agents.trace import Trace, lengths
from loadtests.simulator.arrivals import Searches
from loadtests.simulator.outcome import Outcome
from loadtests.simulator.policies.guessed import Guessed
from loadtests.simulator.policies.ours import Ours
from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import EngineParams
from loadtests.simulator.simulation import Policy, Simulation
from searchr1.scheduling.options import SchedulingOptions
from searchr1.tokenizer import Tokenizer

_CACHED_S = 0.002
_MANY_CACHES = 100
"""So many times the KV cache holds all runs whole."""


class TracedSearches(Searches):
    """Searches that take as long as the real ones did; with ``is_cached``, behind the gateway's cache."""

    def __init__(self, trace: Trace, *, is_cached: bool) -> None:
        super().__init__(random.Random(0), cached_s=_CACHED_S if is_cached else None)
        self._trace, self._is_cached = trace, is_cached
        self._found_at: dict[str, float] = {}

    def latency_s(self, query: str, now: float) -> float:
        """See ``Searches``."""
        if not self._is_cached:
            return self._trace.latency_s(query)
        if query not in self._found_at:
            self._found_at[query] = now + self._trace.latency_s(query)
        return max(_CACHED_S, self._found_at[query] - now)


def _ours(scheduling: SchedulingOptions) -> Policy:
    return Ours(options=scheduling)


POLICIES: Mapping[str, Callable[[SchedulingOptions], Policy]] = {
    "plain": lambda _: Plain(),
    "thunderagent": lambda _: Guessed(tick_s=1.0),
    "ours": _ours,
    "without-priority": lambda scheduling: Ours(options=scheduling, engine_policy="fcfs"),
    "without-admission": lambda scheduling: Ours(options=scheduling, knows_capacity=False),
}
"""What stands in the simulator for an arm."""


@dataclass(frozen=True, slots=True)
class Compared:
    """An arm, as it was measured and as it is simulated."""

    measured: Result
    simulated: Outcome

    @property
    def errors(self) -> dict[str, float]:
        """Simulated over measured, less 1; of the cached share the difference."""
        measured, simulated = self.measured, self.simulated
        return {
            "makespan": simulated.makespan_s / measured.makespan_s - 1,
            "mean": simulated.mean_s / measured.mean_s - 1,
            "p95": simulated.p95_s / measured.quantile_s(0.95) - 1,
            "cached": simulated.cached - measured.cached,
        }


def engine_params(
    rates: Mapping[str, float], capacity_tokens: int, *, block_size: int, max_num_seqs: int
) -> EngineParams:
    """Return the simulator's engine with measured rates."""
    return EngineParams(
        name="measured",
        num_blocks=capacity_tokens // block_size,
        block_size=block_size,
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=2048,
        **rates,
    )


def compared(
    results: Sequence[Result],
    trace: Trace,
    tokenizer: Tokenizer,
    params: EngineParams,
    scheduling: SchedulingOptions,
) -> list[Compared]:
    """Simulate every measured arm that the simulator has a policy for."""
    runs = lengths(trace, tokenizer)
    found = []
    for result in results:
        if result.arm not in POLICIES or not result.latencies_s or result.trace != trace.digest:
            continue
        is_cached = result.arm not in ("plain", "thunderagent")
        searches = TracedSearches(trace, is_cached=is_cached)
        simulation = Simulation(params, POLICIES[result.arm](scheduling), 1, searches)
        simulation.run(runs, arrival_times_s(result.arrivals_per_s, len(runs), seed=1))
        found.append(Compared(result, Outcome.of(simulation)))
    return found


def without_end(trace: Trace, tokenizer: Tokenizer, params: EngineParams, arrivals_per_s: float | None) -> Outcome:
    """Simulate plain agents on an engine whose KV cache holds all runs whole: each token is computed once.

    Searches are cached and stopped at, as the gateway does. No order of the same work on such an engine with a smaller
    cache computes less.
    """
    runs = lengths(trace, tokenizer)
    boundless = replace(params, num_blocks=_MANY_CACHES * params.num_blocks)
    simulation = Simulation(boundless, Plain(), 1, TracedSearches(trace, is_cached=True))
    simulation.run(runs, arrival_times_s(arrivals_per_s, len(runs), seed=1))
    return Outcome.of(simulation)
