"""The paper's studies: runs that differ in one thing, over seeds, on Atlas and on real questions.

    python -m loadtests.studies plan                         # what there is, and what is done
    python -m loadtests.studies run OUT --scale 0.2          # goes on where it was interrupted
    python -m loadtests.studies score OUT --world atlas --questions FILE --retriever index:PATH
    python -m loadtests.seven report TABLE --studies OUT     # the page

``plan.py`` lists the studies. ``--scale`` shortens all runs alike, for a slow machine; runs of another scale want
another OUT. ``--set realqa:data=FILE`` sets a field of all runs of a world. ``score`` answers test questions with every
finished checkpoint.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.commands import run_command
from loadtests.seven.__main__ import pairs
from loadtests.studies.commands import Choices
from loadtests.studies.plan import STUDIES, Run, Study, all_runs, runs_of
from loadtests.studies.running import read_done, run_all
from loadtests.studies.scoring import exam_of, score


def chosen_studies(only: Sequence[str]) -> list[Study]:
    """Return the studies whose names begin with one of ``only``, or all. Raises ``ValueError`` where there is none."""
    found = [study for study in STUDIES if not only or study.name.startswith(tuple(only))]
    if not found:
        raise ValueError(f"no study begins like that; there are {', '.join(study.name for study in STUDIES)}")
    return found


def show(args: argparse.Namespace) -> None:
    """Print the studies with their runs, and which of these are done."""
    for study in chosen_studies(args.only):
        print(f"{study.name}: {study.asks}")
        for run in runs_of(study, args.seeds):
            is_done = args.out is not None and read_done(run.folder(args.out)) is not None
            print(f"  {'done' if is_done else '    '}  {run.name}: {run.arm.label}")


def train(args: argparse.Namespace) -> None:
    """Train the runs that are not done. A SIGTERM ends it as an interrupt does: every run is stopped in order."""

    async def stoppable() -> list[Run]:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        runs = all_runs(chosen_studies(args.only), args.seeds)
        return await run_all(runs, _choices(args), at_once=args.at_once)

    try:
        failed = asyncio.run(stoppable())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    if failed:
        sys.exit(f"{len(failed)} runs failed: the same command tries them again")


def scored(args: argparse.Namespace) -> None:
    """Score one start and its runs, or each start in a process of its own: an engine does not start twice in one."""
    runs = [run for run in all_runs(chosen_studies(args.only)) if run.world == args.world]
    if args.of is None:
        starts = dict.fromkeys(run.start for run in runs if read_done(run.folder(args.out)) is not None)
        codes = [subprocess.run([*_same_command(), "--of", start], check=False).returncode for start in starts]
        sys.exit(int(any(codes)))
    exam = exam_of(args.world, args.questions, args.retriever, args.num, args.concurrency)
    if not asyncio.run(score(exam, args.of, runs, _choices(args), print)):
        sys.exit("some were not scored: the same command tries them again")


def _same_command() -> list[str]:
    return [sys.executable, "-m", "loadtests.studies", *sys.argv[1:]]


def _choices(args: argparse.Namespace) -> Choices:
    settings: dict[str, list[str]] = {}
    for word in args.set:
        world, colon, setting = word.partition(":")
        if not (colon and "=" in setting):
            raise ValueError(f"--set takes WORLD:NAME=VALUE, not {word!r}")
        settings.setdefault(world, []).append(setting)
    return Choices(
        out=args.out, scale=args.scale, configs=pairs(args.config), starts=pairs(args.start), settings=settings
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    plan = commands.add_parser("plan", help="show the studies")
    plan.add_argument("out", type=Path, nargs="?", help="folder of runs, to see which are done")
    plan.set_defaults(do=show)
    running = commands.add_parser("run", help="train what is not done")
    running.add_argument("out", type=Path, help="folder for the runs")
    running.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    running.set_defaults(do=train)
    scoring = commands.add_parser("score", help="answer test questions with what is done")
    scoring.add_argument("out", type=Path, help="folder of the runs")
    scoring.add_argument("--world", required=True, help="atlas or realqa")
    scoring.add_argument("--questions", type=Path, required=True, help="test questions of the world")
    scoring.add_argument("--retriever", required=True, help="as `searchr1 serve` takes it")
    scoring.add_argument("--num", type=int, help="questions: of Atlas in all, else of each set")
    scoring.add_argument("--concurrency", type=int, default=64)
    scoring.add_argument("--of", help="a start by its name; by default each")
    scoring.set_defaults(do=scored)
    for command in (plan, running, scoring):
        command.add_argument("--only", action="append", default=[], help="studies whose names begin like this")
    for command in (plan, running):
        command.add_argument("--seeds", type=int, help="fewer seeds than planned")
    for command in (running, scoring):
        command.add_argument("--scale", type=float, default=1.0, help="share of steps and questions")
        command.add_argument(
            "--config", action="append", default=[], metavar="WORLD-ALGORITHM=FILE", help="another configuration"
        )
        command.add_argument("--start", action="append", default=[], metavar="NAME=DIR", help="where a start lies")
        command.add_argument("--set", action="append", default=[], metavar="WORLD:NAME=VALUE", help="a setting of runs")
    return parser


def main() -> None:
    """Run a command."""
    run_command(_parser(), "loadtests.studies")


if __name__ == "__main__":
    main()
