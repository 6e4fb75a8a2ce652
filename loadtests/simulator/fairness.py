"""A greedy tenant beside a polite one: what the polite one's latencies are, alone and in company."""

import random
from collections.abc import Callable

from loadtests.simulator.arrivals import Searches
from loadtests.simulator.outcome import quantile
from loadtests.simulator.policies.ours import Ours
from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import SEVEN_B_H100
from loadtests.simulator.simulation import Policy, Simulation
from loadtests.traces import SHAPES, drawn

_NUM_GREEDY, _NUM_POLITE = 600, 60
_EVERY_S = 1.0

FAIRNESS_POLICIES: dict[str, Callable[[], Policy]] = {
    "fcfs, no cap": Plain,
    "priority by turn, fixed cap of 100": lambda: Plain(engine_policy="priority", cap=100),
    "ours without fair shares": lambda: Ours(is_fair=False),
    "ours": Ours,
}


def polite_latencies_s(make: Callable[[], Policy], *, with_greedy: bool, seed: int = 1) -> list[float]:
    """Return the sorted latencies of a tenant that asks once a second, beside one that asks 600 at once, or alone."""
    runs = drawn(SHAPES["hotpot"], _NUM_GREEDY + _NUM_POLITE, seed=seed)
    greedy, polite = runs[:_NUM_GREEDY], runs[_NUM_GREEDY:]
    times = [_EVERY_S * (number + 1) for number in range(_NUM_POLITE)]
    simulation = Simulation(SEVEN_B_H100, make(), 1, Searches(random.Random(seed), cached_s=None))
    if with_greedy:
        tenants = ["greedy"] * len(greedy) + ["polite"] * len(polite)
        simulation.run([*greedy, *polite], [0.0] * len(greedy) + times, tenants=tenants)
    else:
        simulation.run(polite, times, tenants=["polite"] * len(polite))
    return sorted(run.latency_s for run in simulation.runs if run.tenant == "polite")


def fairness_table() -> str:
    """Return a table in Markdown."""
    rows = ["| policy | alone: mean, p95 s | beside 600 runs: mean, p95 s | p95, times |", "|---|---|---|---|"]
    for name, make in FAIRNESS_POLICIES.items():
        alone = polite_latencies_s(make, with_greedy=False)
        beside = polite_latencies_s(make, with_greedy=True)
        p95s = [quantile(latencies, 0.95) for latencies in (alone, beside)]
        means = [sum(latencies) / len(latencies) for latencies in (alone, beside)]
        rows.append(
            f"| {name} | {means[0]:.2f}, {p95s[0]:.2f} | {means[1]:.2f}, {p95s[1]:.2f} | {p95s[1] / p95s[0]:.2f} |"
        )
    return "\n".join(rows)
