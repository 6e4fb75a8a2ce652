"""A comparison of ways to schedule search agents on vLLM, in simulation: tables on standard output, two pictures.

    python -m loadtests.simulator                                     # all scenarios, drawn traces, 3 seeds
    python -m loadtests.simulator --runs FOLDER                       # the one-search scenario from recorded runs
    python -m loadtests.simulator --only rush --seeds 1

The engine is a model of vLLM (``replica.py``, ``kv_cache.py``, ``rates.py``); ours is the gateway's own code,
``searchr1.scheduling``. All policies of a row see the same runs at the same times.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from loadtests.simulator.arrivals import poisson
from loadtests.simulator.fairness import fairness_table
from loadtests.simulator.outcome import Outcome
from loadtests.simulator.pictures import draw_latencies, draw_loads
from loadtests.simulator.rates import SEVEN_B_H100
from loadtests.simulator.scenarios import PARTS, POLICIES, SCENARIOS, Make, Scenario, outcome, simulate
from loadtests.traces import RunTrace, counter, recorded

_RATES = (4.0, 5.0, 6.0, 7.0, 8.0, 8.5, 9.0, 10.0)
_LOAD_POLICIES = (
    "fcfs, no cap",
    "priority by turn, no cap",
    "ThunderAgent-like",
    "CacheTTL-like, in the engine",
    "ours",
    "ours, growth known",
)


def table(scenario: Scenario, policies: Mapping[str, Make], seeds: int, runs: Sequence[RunTrace]) -> str:
    """Return a table in Markdown, a row a policy."""
    rows = [
        "| policy | makespan s | runs/s | mean s | p95 s | p99 s | cached | kept | recomputed a run | preemptions |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, make in policies.items():
        found = outcome(scenario, make, seeds, runs)
        rows.append(
            f"| {name} | {found.makespan_s:.1f} | {found.runs_per_s:.2f} | {found.mean_s:.2f} | {found.p95_s:.2f} "
            f"| {found.p99_s:.2f} | {found.cached:.1%} | {found.kept:.1%} | {found.recomputed_tokens:,.0f} "
            f"| {found.num_preemptions:.0f} |"
        )
    return "\n".join(rows)


def loads(seeds: int) -> dict[str, list[tuple[float, Outcome]]]:
    """Return the outcomes of each policy as runs come ever faster, for two minutes."""
    found: dict[str, list[tuple[float, Outcome]]] = {name: [] for name in _LOAD_POLICIES}
    for rate in _RATES:
        scenario = Scenario(
            name="load",
            params=SEVEN_B_H100,
            shape="hotpot",
            num_runs=int(180 * rate),
            arrivals=poisson(rate),
            cap=100,
        )
        for name in _LOAD_POLICIES:
            found[name].append((rate, outcome(scenario, POLICIES[name], seeds)))
    return found


def latencies_s(scenario: Scenario, runs: Sequence[RunTrace]) -> dict[str, list[float]]:
    """Return each policy's sorted latencies, for the first seed."""
    return {
        name: sorted(run.latency_s for run in simulate(scenario, make, seed=1, recorded=runs).runs)
        for name, make in POLICIES.items()
        if name != "fcfs, fixed cap"
    }


def main() -> None:
    """Parse the arguments, simulate, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, help="folder of recorded runs, for the one-search scenario")
    parser.add_argument("--tokenizer", help="folder or name, for recorded runs")
    parser.add_argument("--seeds", type=int, default=3, help="each number is a mean over so many")
    parser.add_argument("--only", action="append", choices=[scenario.name for scenario in SCENARIOS], default=[])
    parser.add_argument("--num", type=int, help="runs of each scenario, instead of its own number")
    parser.add_argument("--pictures", type=Path, help="folder for latencies and loads, as simulator-*.png")
    args = parser.parse_args()
    started = time.perf_counter()
    runs = recorded(args.runs, counter(args.tokenizer)) if args.runs else []
    chosen = [scenario for scenario in SCENARIOS if not args.only or scenario.name in args.only]
    if args.num:
        chosen = [replace(scenario, num_runs=args.num) for scenario in chosen]
    for scenario in chosen:
        began = time.perf_counter()
        print(f"### {scenario.name}: {scenario.num_runs:,} runs on {scenario.num_replicas} × {scenario.params.name}\n")
        print(table(scenario, POLICIES, args.seeds, runs), end="\n\n")
        print("Ours without its parts:\n")
        print(table(scenario, PARTS, args.seeds, runs), end="\n\n")
        print(f"({time.perf_counter() - began:.1f} s)\n", flush=True)
    if not args.only:
        print(f"### A polite tenant beside a greedy one\n\n{fairness_table()}\n")
    if args.pictures:
        draw_latencies(args.pictures / "simulator-latencies.png", {s.name: latencies_s(s, runs) for s in chosen})
        draw_loads(args.pictures / "simulator-loads.png", loads(args.seeds))
    print(f"All in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
