"""The report: tables of all arms, what was aimed at and what came out, and the simulator's errors."""

import shutil
import statistics
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from loadtests.agents import result as results
from loadtests.agents.arms import arm_named
from loadtests.agents.goals import goals_table
from loadtests.agents.operating import scheduling_of
from loadtests.agents.pictures import draw_latencies, draw_parts
from loadtests.agents.result import Result
from loadtests.agents.trace import Trace
from loadtests.agents.validation import compared, engine_params, without_end
from loadtests.simulator.outcome import Outcome
from searchr1.tokenizer import Tokenizer

_HEAD = """# Ways to serve search agents, measured

This page compares the gateway with other ways to serve the same search agents on the same vLLM, whose KV cache is too
small for all of them. It is written by

```console
$ python -m loadtests.agents suite --model DIR --out OUT --recorded FOLDER --thunderagent TA
$ python -m loadtests.agents report OUT --model DIR
```

which goes on where it was interrupted, here too with OUT/results.jsonl from [agents.jsonl](agents.jsonl), which has the
times of every run and no text. DIR is a checkpoint, here SmolLM2-135M-Instruct. FOLDER holds recorded runs of
a published Search-R1 checkpoint, and TA ThunderAgent's package; neither is in this repository. Without FOLDER, the
texts are words that mean nothing.
"""
_METHOD = """## How it is measured

* **The same work in all arms.** A run is the turns of several recorded runs, one after the other: thoughts, queries,
  passages, an answer. vLLM computes as always, but a logits processor (`forcing.py`) puts the recorded token in place
  of the one that it chose. A run that did not end with the texts and the answer of its trace counts as wrong.
  In `parts`, the one without admission had an engine that said nothing for 30 s, and was asked for again in the middle
  of a turn, where this harness began the turn anew (it goes on there since); that of `crowd` met an observation cut
  inside a character, after which vLLM gave the prompt's own `<search> query </search>` as the model's text
  ([ADR 37](../adr/0037-cuts-keep-characters-whole.md)); a cut keeps characters whole since.
* **The same searches.** One server answers all arms, each query after a time of its own: lognormal, 0.3–4 s.
* **Each arm** begins with a vLLM that has just started. Repeats go through the arms in another order; numbers are
  medians.
* **Compare within a table**: tables were measured in different hours, and machines differ.
* **Times** count from a run's coming. **Cached**: share of all prompt tokens that the prefix cache had. **Recomputed**:
  prompt tokens a run past those that must be computed once (chat templates and cached blocks' remainders included).
* The gateway is asked over HTTP, a streamed request a run; agents run in the harness's own process and are free.
"""


def write_report(out: Path, model: Path, docs: Path) -> None:
    """Write ``agents.md``, its pictures and the results themselves into ``docs``.

    Raises:
        ValueError: nothing was measured.
    """
    file = out / "results.jsonl"
    found = results.read(file)
    measured = [result for result in found if result.runs]
    if not measured:
        raise ValueError(f"{file} has no measured arm")
    parts = [_HEAD, goals_table(measured)]
    for (scenario, num_runs), group in _grouped(measured, lambda result: (result.scenario, result.num_runs)):
        parts.append(f"## {scenario}, {num_runs} runs\n\n{_about(group)}\n\n{arms_table(group)}\n")
    parts.append("![Share of runs that have ended over time](agents-latencies.png)\n")
    parts.append("![Throughput and cached share by arm](agents-parts.png)\n")
    parts.append(_simulated(found, out, model))
    parts.append(_METHOD)
    parts.append(f"Made with: {_made_with(measured)}.\n")
    shutil.copyfile(file, docs / "agents.jsonl")
    (docs / "agents.md").write_text("\n".join(part for part in parts if part), encoding="utf-8")
    draw_latencies(docs / "agents-latencies.png", measured)
    draw_parts(docs / "agents-parts.png", measured)


def median(group: Sequence[Result], number: Callable[[Result], float]) -> float:
    """Return the median of a number over repeats."""
    return statistics.median(number(result) for result in group)


def arms_table(measured: Sequence[Result]) -> str:
    """Return a table in Markdown, a row an arm."""
    rows = [
        "| arm | makespan s | runs/min | mean s | p50 s | p95 s | p99 s | cached | recomputed a run | preemptions "
        "| searches | engine CPU s | router CPU s | wrong, lost | repeats |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, group in _grouped(measured, lambda result: result.arm):
        engine = _of_engine(group) if group[0].counters else "– | – | –"
        rows.append(
            f"| {arm} | {median(group, lambda r: r.makespan_s):.1f} | {median(group, lambda r: r.runs_per_min):.1f} "
            f"| {median(group, lambda r: r.mean_s):.1f} | {median(group, lambda r: r.quantile_s(0.5)):.1f} "
            f"| {median(group, lambda r: r.quantile_s(0.95)):.1f} | {median(group, lambda r: r.quantile_s(0.99)):.1f} "
            f"| {engine} | {median(group, lambda r: r.num_searches):.0f} "
            f"| {median(group, lambda r: r.engine_cpu_s):.0f} | {median(group, lambda r: r.router_cpu_s):.1f} "
            f"| {sum(r.num_of('wrong') for r in group)}, {sum(r.num_of('lost') for r in group)} | {len(group)} |"
        )
    abouts = "\n".join(f"* {arm}: {arm_named(arm).about}" for arm in dict.fromkeys(r.arm for r in measured))
    return "\n".join(rows) + f"\n\n{abouts}"


def _of_engine(group: Sequence[Result]) -> str:
    preemptions = median(group, lambda result: result.counters["num_preemptions"])
    cached, recomputed = median(group, lambda r: r.cached), median(group, lambda r: r.recomputed_tokens)
    return f"{cached:.1%} | {recomputed:,.0f} | {preemptions:.0f}"


def _about(group: Sequence[Result]) -> str:
    first = next((result for result in group if result.capacity_tokens), group[0])
    come = "all at once" if first.arrivals_per_s is None else f"{first.arrivals_per_s:g} a second"
    times = first.footprint_tokens / first.capacity_tokens if first.capacity_tokens else 0
    room = f", {times:.1f} times the KV cache's {first.capacity_tokens:,}" if times else ""
    options = first.made_with.get("options")
    asked = f" Options: `{options}`." if options else ""
    return f"Runs come {come}. Together they grow to {first.footprint_tokens:,} tokens{room}.{asked}"


def _simulated(found: Sequence[Result], out: Path, model: Path) -> str:
    """Return how far the simulator errs; empty where no rates were measured."""
    calibrations = [result for result in found if result.rates]
    if not calibrations:
        return ""
    calibration = calibrations[-1]
    params = engine_params(calibration.rates, calibration.capacity_tokens, block_size=128, max_num_seqs=64)
    tokenizer = Tokenizer.load(str(model))
    rows = [
        "| scenario | arm | makespan s, simulated | mean s, simulated | p95 s, simulated | cached, simulated |",
        "|---|---|---|---|---|---|",
    ]
    bounds = []
    # Rates are a machine's of an hour: they say nothing of what was measured at another time.
    together = [result for result in found if result.runs and result.scenario == calibration.scenario]
    for digest, group in _grouped(together, lambda result: result.trace):
        trace = Trace.read(out / f"trace-{digest}.json")
        bounds += _bound(group, without_end(trace, tokenizer, params, group[0].arrivals_per_s))
        for one in compared(group, trace, tokenizer, params, scheduling_of(trace)):
            real, simulated, errors = one.measured, one.simulated, one.errors
            rows.append(
                f"| {real.scenario} {real.num_runs} | {real.arm} "
                f"| {real.makespan_s:.1f}, {simulated.makespan_s:.1f} ({errors['makespan']:+.0%}) "
                f"| {real.mean_s:.1f}, {simulated.mean_s:.1f} ({errors['mean']:+.0%}) "
                f"| {real.quantile_s(0.95):.1f}, {simulated.p95_s:.1f} ({errors['p95']:+.0%}) "
                f"| {real.cached:.1%}, {simulated.cached:.1%} ({100 * errors['cached']:+.1f} points) |"
            )
    rates = ", ".join(f"`{name}` {value * 1000:.3f} ms" for name, value in calibration.rates.items())
    return f"""## The simulator, held against this

The same runs and searches in `loadtests/simulator`, with rates that a minute of calibration measured ({rates}); nothing
is fitted to the arms.

{chr(10).join(rows)}

With a KV cache that holds all runs whole, each token is computed once, and no order of the work can do with less
(simulated, with the gateway's cached searches and stops):

{chr(10).join(bounds)}
"""


def _bound(group: Sequence[Result], boundless: Outcome) -> list[str]:
    """Return what the most is that scheduling can gain over the plain agents of a group; empty without such."""
    plain = [result for result in group if result.arm == "plain"]
    if not plain:
        return []
    times = median(plain, lambda result: result.makespan_s) / boundless.makespan_s
    return [
        f"* {plain[0].scenario} {plain[0].num_runs}: a makespan of {boundless.makespan_s:.1f} s, {times:.2f} times the "
        "throughput measured of plain agents."
    ]


def _made_with(measured: Sequence[Result]) -> str:
    last = max(measured, key=lambda result: result.began)
    names = ("commit", "vllm", "torch", "transformers", "python", "machine")
    facts = ", ".join(f"{name} {last.made_with.get(name, '?')}" for name in names)
    load = max(float(result.made_with.get("load_before", 0)) for result in measured)
    return (
        f"{facts}; {last.began[:10]}; load of the machine before an arm at most {load:g}; vLLM with "
        f"`{last.made_with.get('engine', '')}`, agents' and routers' with `--scheduling-policy fcfs`"
    )


def _grouped(measured: Sequence[Result], key: Callable[[Result], Any]) -> list[tuple[Any, list[Result]]]:
    """Return groups in the order in which they came."""
    order = {value: number for number, value in enumerate(dict.fromkeys(map(key, measured)))}
    ordered = sorted(measured, key=lambda result: order[key(result)])
    return [(value, list(group)) for value, group in groupby(ordered, key)]
