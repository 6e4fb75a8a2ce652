"""A greedy tenant beside a polite one: what the polite one's latencies are, alone and in company."""

import random
from collections.abc import Callable
from statistics import fmean

from loadtests.simulator.arrivals import Searches
from loadtests.simulator.outcome import quantile
from loadtests.simulator.policies.ours import Ours
from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import SEVEN_B_H100
from loadtests.simulator.simulation import Policy, Simulation
from loadtests.traces import SHAPES, drawn
from searchr1.scheduling.options import SchedulingOptions

_NUM_GREEDY, _NUM_POLITE = (300, 600), 60
_EVERY_S = 1.0
_SEEDS = (1, 2, 3)


def _unbounded(**options: float) -> SchedulingOptions:
    return SchedulingOptions(max_queued=10**6, max_queued_per_tenant=10**6, **options)  # type: ignore[arg-type]


FAIRNESS_POLICIES: dict[str, Callable[[], Policy]] = {
    "fcfs, no cap": Plain,
    "priority by turn, fixed cap of 100": lambda: Plain(engine_policy="priority", cap=100),
    "ours without fair shares": lambda: Ours(is_fair=False),
    "ours, all room for anyone": lambda: Ours(options=_unbounded(tenant_room_share=1.0)),
    "ours": Ours,
}


def shared_s(make: Callable[[], Policy], num_greedy: int, *, seed: int = 1) -> tuple[list[float], float]:
    """Let a tenant ask once a second, beside one that asks ``num_greedy`` at once.

    Return the latencies of the first, and the time at which the last run of the second ended, 0 for none.
    """
    runs = drawn(SHAPES["hotpot"], max(_NUM_GREEDY) + _NUM_POLITE, seed=seed)
    runs = [*runs[:num_greedy], *runs[-_NUM_POLITE:]]
    times = [_EVERY_S * (number + 1) for number in range(_NUM_POLITE)]
    simulation = Simulation(SEVEN_B_H100, make(), 1, Searches(random.Random(seed), cached_s=None))
    tenants = ["greedy"] * num_greedy + ["polite"] * _NUM_POLITE
    simulation.run(runs, [0.0] * num_greedy + times, tenants=tenants)
    polite = [run.latency_s for run in simulation.runs if run.tenant == "polite"]
    return polite, max((run.ended_at for run in simulation.runs if run.tenant == "greedy"), default=0.0)


def fairness_table() -> str:
    """Return a table in Markdown."""
    rows = [
        "| policy | greedy runs | alone: mean, p95 s | beside: mean, p95 s | p95, times | greedy ones take, s |",
        "|---|---|---|---|---|---|",
    ]
    for num_greedy in _NUM_GREEDY:
        for name, make in FAIRNESS_POLICIES.items():
            alone = sorted(latency for seed in _SEEDS for latency in shared_s(make, 0, seed=seed)[0])
            beside = [shared_s(make, num_greedy, seed=seed) for seed in _SEEDS]
            latencies = sorted(latency for polite, _ in beside for latency in polite)
            p95s = [quantile(alone, 0.95), quantile(latencies, 0.95)]
            rows.append(
                f"| {name} | {num_greedy} | {fmean(alone):.2f}, {p95s[0]:.2f} | {fmean(latencies):.2f}, {p95s[1]:.2f} "
                f"| {p95s[1] / p95s[0]:.2f} | {fmean(ended_at for _, ended_at in beside):.0f} |"
            )
    return "\n".join(rows)
