"""Asks the served Wikipedia demo fifty questions, and writes what it said to docs/results/demo-wiki.md.

    make demo-wiki
    .venv/bin/python -m loadtests.demo_wiki --url http://127.0.0.1:8000

``--check`` asks nothing: it tells which questions the leads do not answer.
"""

import argparse
import asyncio
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx

from loadtests.demo_wiki import asking
from loadtests.demo_wiki.questions import read_questions, unanswerable
from loadtests.demo_wiki.report import report, write_report
from loadtests.processes import ROOT
from searchr1.demo.wiki.bundle import Place
from searchr1.demo.wiki.leads import passages
from searchr1.demo.wiki.packages import LEADS, member


def check(data_dir: Path) -> int:
    """Print which questions the leads in ``data_dir`` do not answer, and return their number."""
    with member(LEADS, Place(data_dir).packages) as file:
        leads = {passage["title"]: passage["text"] for passage in passages(file, LEADS.wheel)}
    reasons = {question.id: unanswerable(question, leads) for question in read_questions()}
    for name, reason in reasons.items():
        if reason is not None:
            print(f"{name}: {reason}")
    return sum(reason is not None for reason in reasons.values())


async def main(url: str, out: Path, kept: Path | None, concurrency: int, note: str) -> None:
    """Ask everything, and write the page, with ``note`` on it, and, to ``kept``, the answers."""
    about = str((await asyncio.to_thread(httpx.get, f"{url}/page.json")).raise_for_status().json()["about"])
    questions = read_questions()
    started = time.perf_counter()
    answers = await asking.ask_all(url, questions, concurrency=concurrency)
    if kept is not None:
        asking.write(kept, answers)
    at = (
        f"Asked on {datetime.now(UTC):%Y-%m-%d}, {concurrency} at a time, on {os.cpu_count()} CPU cores; all took "
        f"{time.perf_counter() - started:.0f} s. {note}"
    )
    write_report(out, report(about, questions, answers, at))
    print(f"{sum(answer.right for answer in answers)} of {len(answers)} right: {out}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "demo-wiki.md")
    parser.add_argument("--answers", type=Path, help="Write the answers to this file, too, as JSON lines.")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--note", default="", help="What else is to be known of this run, in a sentence.")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    args = parser.parse_args()
    if args.check:
        sys.exit(min(check(args.data_dir), 1))
    asyncio.run(main(args.url, args.out, args.answers, args.concurrency, args.note))
