"""The comparisons of the report: traces, arrivals and replicas, and the policies that meet them."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from loadtests.simulator.arrivals import Arrivals, Searches, at_once, bursty, poisson
from loadtests.simulator.outcome import Outcome
from loadtests.simulator.policies.guessed import Guessed
from loadtests.simulator.policies.kept import Kept
from loadtests.simulator.policies.ours import Ours
from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import SEVEN_B_GROUPED_H100, SEVEN_B_H100, SMOLLM2_135M_CPU, EngineParams
from loadtests.simulator.simulation import Policy, Simulation
from loadtests.traces import SHAPES, RunTrace, drawn, resampled
from searchr1.scheduling.options import SchedulingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One world, in which all policies run."""

    name: str
    params: EngineParams
    shape: str
    num_runs: int
    arrivals: Arrivals
    cap: int
    """Runs at once on a replica, for the policies with a fixed cap: the best of those tried, in steps of a tenth; in
    ``roomy`` that of the smaller cache, which is what becomes of a cap that nobody tunes anew."""
    num_replicas: int = 1
    search_median_s: float = 0.8
    search_sigma: float = 0.7
    max_seeds: int = 100
    long_share: float = 0.0
    """Part of the runs that follow a long conversation."""

    def traces(self, seed: int, recorded: Sequence[RunTrace] = ()) -> list[RunTrace]:
        """Return the runs: of the scenario's shape, or drawn from recorded ones."""
        if recorded and self.shape == "recorded":
            return resampled(list(recorded), self.num_runs, seed=seed)
        num_long = int(self.long_share * self.num_runs)
        runs = drawn(SHAPES[self.shape], self.num_runs - num_long, seed=seed)
        runs += [replace(run, run=f"long-{run.run}") for run in drawn(SHAPES["long"], num_long, seed=seed)]
        if num_long:
            random.Random(seed).shuffle(runs)
        return runs


SCENARIOS = [
    Scenario(
        name="cpu-rush",
        params=SMOLLM2_135M_CPU,
        shape="growing",
        num_runs=48,
        arrivals=at_once(),
        cap=20,
        search_median_s=1.4,
        search_sigma=0.5,
    ),
    Scenario(name="rush", params=SEVEN_B_H100, shape="hotpot", num_runs=600, arrivals=at_once(), cap=100),
    Scenario(name="calm", params=SEVEN_B_H100, shape="hotpot", num_runs=2000, arrivals=poisson(6), cap=100),
    Scenario(name="overload", params=SEVEN_B_H100, shape="hotpot", num_runs=2000, arrivals=poisson(10), cap=100),
    Scenario(name="bursts", params=SEVEN_B_H100, shape="hotpot", num_runs=2000, arrivals=bursty(7), cap=100),
    Scenario(
        name="mixed",
        params=SEVEN_B_H100,
        shape="hotpot",
        num_runs=1500,
        arrivals=poisson(6.5),
        cap=45,
        long_share=0.2,
    ),
    Scenario(name="roomy", params=SEVEN_B_GROUPED_H100, shape="hotpot", num_runs=600, arrivals=at_once(), cap=100),
    Scenario(name="one-search", params=SEVEN_B_H100, shape="recorded", num_runs=1500, arrivals=at_once(), cap=200),
    Scenario(
        name="fleet",
        params=SEVEN_B_H100,
        shape="hotpot",
        num_runs=20_000,
        arrivals=bursty(540),
        cap=100,
        num_replicas=64,
        max_seeds=1,
    ),
]

Make = Callable[[Scenario], tuple[Policy, Scenario]]


def _options(**options: float) -> SchedulingOptions:
    return SchedulingOptions(max_queued=10**6, max_queued_per_tenant=10**6, **options)  # type: ignore[arg-type]


def endless(scenario: Scenario) -> Scenario:
    """Return a scenario with a KV cache in which nothing is ever lost."""
    params = replace(scenario.params, num_blocks=100 * scenario.params.num_blocks)
    return replace(scenario, params=params)


POLICIES: dict[str, Make] = {
    "fcfs, no cap": lambda s: (Plain(), s),
    "fcfs, fixed cap": lambda s: (Plain(cap=s.cap), s),
    "priority by turn, no cap": lambda s: (Plain(engine_policy="priority"), s),
    "priority by turn, fixed cap": lambda s: (Plain(engine_policy="priority", cap=s.cap), s),
    "ThunderAgent-like": lambda s: (Guessed(), s),
    "CacheTTL-like, in the engine": lambda s: (Kept(), s),
    "ours": lambda s: (Ours(options=_options()), s),
    "ours, growth known": lambda s: (Ours(options=_options(), knows_growth=True), s),
    "endless KV cache, priority": lambda s: (Plain(engine_policy="priority"), endless(s)),
}
"""What is compared."""
PARTS: dict[str, Make] = {
    "ours": POLICIES["ours"],
    "without priority": lambda s: (Ours(options=_options(), engine_policy="fcfs"), s),
    "without budgets": lambda s: (Ours(options=_options(), knows_capacity=False), s),
    "without reserve": lambda s: (Ours(options=_options(), expects_growth=False), s),
    "without pauses": lambda s: (Ours(options=_options(max_pause_s=0)), s),
    "in order of coming": lambda s: (Ours(options=_options(wait_s_per_token=0)), s),
    "placed at random": lambda s: (Ours(options=_options(), places_by_room=False), s),
    "first growth 1,000": lambda s: (Ours(options=_options(first_growth_tokens=1000)), s),
    "the same, without pauses": lambda s: (Ours(options=_options(first_growth_tokens=1000, max_pause_s=0)), s),
}
"""Ours without each of its parts."""


def simulate(
    scenario: Scenario, make: Make, *, seed: int, recorded: Sequence[RunTrace] = (), cached_s: float | None = None
) -> Simulation:
    """Run one policy through one scenario. The same seed gives every policy the same runs at the same times."""
    traces = scenario.traces(seed, recorded)
    policy, scenario = make(scenario)
    searches = Searches(
        random.Random(seed + 1), median_s=scenario.search_median_s, sigma=scenario.search_sigma, cached_s=cached_s
    )
    simulation = Simulation(scenario.params, policy, scenario.num_replicas, searches)
    simulation.run(traces, scenario.arrivals(scenario.num_runs, random.Random(seed + 2)))
    return simulation


def outcome(scenario: Scenario, make: Make, seeds: int, recorded: Sequence[RunTrace] = ()) -> Outcome:
    """Return the means over several seeds."""
    num_seeds = min(seeds, scenario.max_seeds)
    return Outcome.mean(
        [Outcome.of(simulate(scenario, make, seed=seed, recorded=recorded)) for seed in range(1, num_seeds + 1)]
    )
