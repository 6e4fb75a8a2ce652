"""The paper's table for a model of one's own, on questions and passages that are read from files by path.

    python -m loadtests.seven prepare OUT --corpus FILE --encoder FOLDER
    python -m loadtests.seven closed-book --questions FILE --held-out FILE --output FILE
    python -m loadtests.seven run OUT --questions FILE --corpus FILE --bm25 index:OUT/bm25 --checkpoint base=DIR
    python -m loadtests.seven report OUT

``prepare`` builds the indexes; ``closed-book`` writes what the row SFT is trained on. ``run`` measures every row whose
checkpoint and retriever are given, and skips what was measured before: run again, with more checkpoints, samples or
questions, it goes on. ``report`` writes ``docs/results/seven.md``. ``rows.py`` lists the rows. Engine and loop are set
by the server's own variables, such as ``SEARCHR1_KV_CACHE_GIB``.
"""

import argparse
import asyncio
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.commands import run_command
from loadtests.seven.closed_book import write_closed_book
from loadtests.seven.measuring import Setup, measure
from loadtests.seven.oracle import oracle_passages
from loadtests.seven.questions import read_questions, sampled
from loadtests.seven.report import write_report
from loadtests.seven.rows import ROWS, Searched, row_named
from searchr1.retrieval.index.bm25 import build_index
from searchr1.retrieval.index.dense import build_dense
from searchr1.retrieval.index.encoder import HuggingFaceEncoder


def prepare(args: argparse.Namespace) -> None:
    """Build the indexes that are not there yet."""
    bm25, dense = args.out / "bm25", args.out / "dense"
    if not bm25.exists():
        info = build_index(args.corpus, bm25)
        print(f"{bm25}: {info.passages:,} passages")
    if args.encoder is not None and not dense.exists():
        info_dense = build_dense(args.corpus, dense, HuggingFaceEncoder(args.encoder))
        print(f"{dense}: {info_dense.passages:,} passages")


def closed(args: argparse.Namespace) -> None:
    """Write demonstrations of answers without a search."""
    print(write_closed_book(args.questions, args.held_out, args.output))


def run(args: argparse.Namespace) -> None:
    """Measure rows. A SIGTERM ends it as an interrupt does: what was answered is kept, and no engine is left behind."""
    rows = [row_named(name) for name in args.rows.split(",")] if args.rows else ROWS
    setup = _setup(args)

    async def stoppable() -> bool:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await measure(setup, rows, _tell)

    try:
        is_whole = asyncio.run(stoppable())
    except asyncio.CancelledError:
        sys.exit(128 + signal.SIGTERM)
    if not is_whole:
        sys.exit("some rows were not measured: the same command goes on")


def _tell(line: str) -> None:
    print(line, flush=True)


def _setup(args: argparse.Namespace) -> Setup:
    questions = sampled(read_questions(args.questions), args.per_set)
    words: dict[Searched, str | None] = {"bm25": args.bm25, "dense": args.dense}
    retrievers: dict[Searched, str] = {name: value for name, value in words.items() if value is not None}
    return Setup(
        out=args.out,
        questions=tuple(questions),
        checkpoints={name: Path(folder) for name, folder in pairs(args.checkpoint).items()},
        retrievers=retrievers,
        gold=None if args.corpus is None else oracle_passages(questions, args.corpus),
        num_samples=args.samples,
        per_set=args.per_set,
        concurrency=args.concurrency,
        command=shlex.join(["python", "-m", "loadtests.seven", *sys.argv[1:]]),
        made=pairs(args.made),
        profiles=pairs(args.profile),
    )


def pairs(words: Sequence[str]) -> Mapping[str, str]:
    """Return what ``NAME=VALUE`` words say. Raises ``ValueError`` for a word that is none."""
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if not (name and value):
            raise ValueError(f"NAME=VALUE is wanted, not {word!r}")
        found[name] = value
    return found


def _report(args: argparse.Namespace) -> None:
    print(write_report(args.out, args.docs, args.studies))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("prepare", help="build the indexes")
    first.add_argument("out", type=Path, help="folder for indexes and results")
    first.add_argument("--corpus", type=Path, required=True, help="passages: JSON Lines, packed or not")
    first.add_argument("--encoder", type=Path, help="folder with model.onnx and tokenizer.json, for the dense index")
    first.set_defaults(do=prepare)
    book = commands.add_parser("closed-book", help="write demonstrations of answers without a search")
    book.add_argument("--questions", type=Path, required=True, help="to train on, such as train.jsonl.gz")
    book.add_argument("--held-out", type=Path, action="append", required=True, help="questions to leave out")
    book.add_argument("--output", type=Path, required=True, help="JSON Lines for searchr1 train sft")
    book.set_defaults(do=closed)
    second = commands.add_parser("run", help="measure rows")
    second.add_argument("out", type=Path, help="folder for results")
    second.add_argument("--questions", type=Path, required=True, help="such as test.jsonl.gz")
    second.add_argument("--corpus", type=Path, help="passages, for the rows with gold passages")
    second.add_argument("--bm25", help="retriever, as `searchr1 serve` takes it: index:PATH")
    second.add_argument("--dense", help="retriever: dense:PATH?encoder=FOLDER")
    second.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help=f"of {', '.join(dict.fromkeys(row.checkpoint for row in ROWS))}",
    )
    second.add_argument(
        "--made", action="append", default=[], metavar="NAME=WORDS", help="how a checkpoint was made, for the page"
    )
    second.add_argument(
        "--profile", action="append", default=[], metavar="NAME=PROFILE", help="a checkpoint's format, if another"
    )
    second.add_argument("--rows", help=f"names with commas between; by default all: {','.join(r.name for r in ROWS)}")
    second.add_argument("--per-set", type=int, help="a sample: so many questions of each set")
    second.add_argument("--samples", type=int, default=0, help="answers at temperature 1, beside the greedy one")
    second.add_argument("--concurrency", type=int, default=32, help="questions at once")
    second.set_defaults(do=run)
    third = commands.add_parser("report", help="write the page")
    third.add_argument("out", type=Path, help="the folder of a run")
    third.add_argument("--studies", type=Path, help="the folder of `python -m loadtests.studies`")
    third.add_argument("--docs", type=Path, default=Path("docs/results"))
    third.set_defaults(do=_report)
    return parser


def main() -> None:
    """Run a command."""
    run_command(_parser(), "loadtests.seven")


if __name__ == "__main__":
    main()
