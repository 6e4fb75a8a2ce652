"""Ways to serve search agents, side by side on a real vLLM whose KV cache is too small for all of them.

    python -m loadtests.agents run --model DIR --arms plain,ours --runs 64 --out OUT --recorded FOLDER
    python -m loadtests.agents suite --model DIR --out OUT --recorded FOLDER --thunderagent FOLDER
    python -m loadtests.agents report OUT --model DIR

``run`` appends a line to ``OUT/results.jsonl`` for each arm and skips what is there already, so that a run that was
interrupted goes on. Each arm gets a vLLM of its own, with empty caches. Every ``--repeats`` goes through the arms in
another order. A run that did not do as its trace does leaves all that it told in ``OUT/odd-….json``. ``suite`` is all
``run``s that the report needs. ``report`` writes ``docs/results/agents.md`` and its pictures. ``arms.py`` lists the
arms.
"""

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from loadtests.agents import result as results
from loadtests.agents.arms import ARMS, Arm, arm_named
from loadtests.agents.engine import EngineOptions
from loadtests.agents.measuring import Setup, measure
from loadtests.agents.report import write_report
from loadtests.agents.suite import SUITE
from loadtests.agents.trace import Shape, Trace, drawn, recorded
from loadtests.processes import DidNotStartError

_STARTING_S = 900.0
"""Time of an arm that is not its runs': the starts and stops of its servers, and a calibration."""
_FILES = ("model", "out", "recorded", "thunderagent")


def rotated(arms: Sequence[Arm], repeat: int) -> list[Arm]:
    """Return the arms in the order of a repeat, from 1: each time another one is first."""
    first = (repeat - 1) % len(arms)
    return [*arms[first:], *arms[:first]]


def run(args: argparse.Namespace) -> None:
    """Measure every arm that was not measured yet. A SIGTERM ends it as an interrupt does: no server is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setup = _setup(args)
    file = args.out / "results.jsonl"
    arms = [arm_named(name) for name in args.arms.split(",")]
    passes = [(arm, repeat) for repeat in range(1, args.repeats + 1) for arm in rotated(arms, repeat)]
    for number, (arm, repeat) in enumerate(passes, 1):
        key = (setup.scenario, arm.name, len(setup.trace.runs), repeat, setup.trace.digest)
        told = f"[{number}/{len(passes)}] {setup.scenario}, {arm.name}, {len(setup.trace.runs)} runs, repeat {repeat}"
        if not args.again and key in {found.key for found in results.read(file)}:
            print(f"{told}: measured before", flush=True)
            continue
        print(f"{told}: {arm.about}", flush=True)
        began = time.perf_counter()
        try:
            found = asyncio.run(asyncio.wait_for(measure(setup, arm, repeat), args.at_most_s + _STARTING_S))
        except (DidNotStartError, ValueError, OSError, aiohttp.ClientError) as error:
            print(f"  not measured: {type(error).__name__}: {error}", flush=True)
            continue
        results.append(file, found)
        print(f"  {_told(found)} ({time.perf_counter() - began:.0f} s in all)", flush=True)


def run_suite(args: argparse.Namespace) -> None:
    """Run the parts of the suite, one after the other."""
    common = ["--model", str(args.model), "--out", str(args.out)]
    for name in ("recorded", "thunderagent", "first_port"):
        if (value := getattr(args, name)) is not None:
            common += [f"--{name.replace('_', '-')}", str(value)]
    parts = [part for part in SUITE if not args.only or part.scenario in args.only]
    for number, part in enumerate(parts, 1):
        left = sum(later.minutes for later in parts[number - 1 :])
        print(f"\n{part.scenario} {part.options}: about {part.minutes} min of {left} that are left", flush=True)
        run(_parser().parse_args(["run", *common, *part.arguments]))


def _told(found: results.Result) -> str:
    if found.rates:
        return ", ".join(f"{name} {value:.6f}" for name, value in found.rates.items())
    faults = [f"{fate} {found.num_of(fate)}" for fate in ("wrong", "lost") if found.num_of(fate)]
    told = next((f" ({run.told[:150]})" for run in found.runs if run.told), "")
    return (
        f"makespan {found.makespan_s:.1f} s, {found.runs_per_min:.1f} runs/min, mean {found.mean_s:.1f} s, "
        f"p95 {found.quantile_s(0.95):.1f} s, cached {found.cached:.1%}, "
        f"recomputed {found.recomputed_tokens:,.0f} a run, preemptions {found.counters.get('num_preemptions', 0)}"
        + (f"; {', '.join(faults)}{told}" if faults else "")
    )


def _setup(args: argparse.Namespace) -> Setup:
    args.out.mkdir(parents=True, exist_ok=True)
    shape = Shape(
        num_runs=args.runs,
        num_searches=tuple(int(number) for number in args.searches.split(",")),
        passage_chars=args.passage_chars,
        thought_chars=args.thought_chars,
        context_chars=args.context_chars,
        repeated=args.repeated,
        seed=args.seed,
    )
    runs = recorded(args.recorded, shape) if args.recorded else drawn(shape)
    trace = Trace(tuple(runs), median_s=args.search_median_s)
    trace.write(args.out / f"trace-{trace.digest}.json")
    model = args.model.resolve()
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    return Setup(
        scenario=args.scenario,
        trace=trace,
        engine=EngineOptions(checkpoint=model, kv_tokens=args.kv_tokens, max_num_seqs=args.max_num_seqs),
        eos_id=config["eos_token_id"],
        arrivals_per_s=args.arrivals_per_s,
        num_tail_tokens=args.tail_tokens,
        at_most_s=args.at_most_s,
        thunderagent=args.thunderagent.resolve() if args.thunderagent else None,
        folder=args.out.resolve(),
        first_port=args.first_port,
        options=_options(args),
    )


def _options(args: argparse.Namespace) -> str:
    """Return the options that make the scenario, as they are written, where they are not the defaults."""
    defaults = _parser().parse_args(["run", "--model", "DIR", "--out", "OUT"])
    left_out = {*_FILES, "command", "do", "arms", "repeats", "again", "first_port"}
    given = {name: value for name, value in vars(args).items() if name not in left_out}
    return " ".join(
        f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value != getattr(defaults, name)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run", help="measure arms")
    one.add_argument("--model", type=Path, required=True, help="folder of a checkpoint with a chat template")
    one.add_argument("--out", type=Path, required=True, help="folder for results and logs")
    one.add_argument("--arms", default="plain,ours", help=f"of: {', '.join(arm.name for arm in ARMS)}, cap-N")
    one.add_argument("--scenario", default="rush", help="a name for what is measured; `calm` has aims of its own")
    one.add_argument("--runs", type=int, default=64)
    one.add_argument("--repeats", type=int, default=1)
    one.add_argument("--again", action="store_true", help="measure what was measured before, too")
    one.add_argument("--recorded", type=Path, help="folder of recorded runs; without it, texts mean nothing")
    one.add_argument("--searches", default="3,4,4,5", help="numbers of searches of a run, drawn from evenly")
    one.add_argument("--passage-chars", type=int, default=620, help="characters of a passage")
    one.add_argument("--thought-chars", type=int, help="characters of a thought, at most")
    one.add_argument("--context-chars", type=int, default=0, help="characters that each question comes with")
    one.add_argument("--repeated", type=float, default=0.15, help="share of searches that another run makes too")
    one.add_argument("--tail-tokens", type=int, default=20, help="written past a search that nobody stops at")
    one.add_argument("--search-median-s", type=float, default=0.9, help="median latency of a search")
    one.add_argument("--arrivals-per-s", type=float, help="runs that come in a second; without it, all come at once")
    one.add_argument("--kv-tokens", type=int, help="tokens that the KV cache holds; by default what a GiB does")
    one.add_argument("--max-num-seqs", type=int, default=64)
    one.add_argument("--at-most-s", type=float, default=1800, help="time of an arm; runs left then are lost")
    one.add_argument("--thunderagent", type=Path, help="folder that holds ThunderAgent's package")
    one.add_argument("--first-port", type=int, help="ports from this one on; by default free ones")
    one.add_argument("--seed", type=int, default=1)
    one.set_defaults(do=run)
    all_ = commands.add_parser("suite", help="measure all that the report needs")
    all_.add_argument("--model", type=Path, required=True)
    all_.add_argument("--out", type=Path, required=True)
    all_.add_argument("--recorded", type=Path)
    all_.add_argument("--thunderagent", type=Path)
    all_.add_argument("--first-port", type=int)
    all_.add_argument("--only", action="append", choices=sorted({part.scenario for part in SUITE}), default=[])
    all_.set_defaults(do=run_suite)
    two = commands.add_parser("report", help="write the report")
    two.add_argument("out", type=Path, help="the folder of a run")
    two.add_argument("--model", type=Path, required=True, help="the checkpoint, for its tokenizer")
    two.add_argument("--docs", type=Path, default=Path("docs/results"))
    two.set_defaults(do=lambda args: write_report(args.out, args.model, args.docs))
    return parser


def main() -> None:
    """Run a command."""
    args = _parser().parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
