"""The evaluation of a served model: ask a gateway every question of a dataset, and score what comes back."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, Unpack

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from searchr1.errors import ConfigurationError
from searchr1.evaluation.datasets import DATA_DIR, Question, load_questions
from searchr1.evaluation.gateway.asker import Asker, Take
from searchr1.evaluation.records import Extractor, Record, RecordFile, chosen_options
from searchr1.evaluation.report import CLOSED_BOOK, SEARCH, Report, Summary, summarize
from searchr1.files import whole_file
from searchr1_client import RunOptions


class Asks(Protocol):
    """A way to have questions answered."""

    extractor: Extractor

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Hand a record of each question to ``take`` as soon as it is there."""
        ...


def evaluate(
    dataset: str,
    *,
    url: str,
    split: str = "test",
    limit: int | None = None,
    data_dir: Path = DATA_DIR,
    data: str | None = None,
    concurrency: int = 16,
    api_key: str | None = None,
    closed_book: bool = False,
    extractor: Extractor = "own",
    out: Path | None = None,
    progress: bool = True,
    **options: Unpack[RunOptions],
) -> Report:
    """Ask the gateway at ``url`` the questions of ``dataset``, as ``load_questions`` reads it, and score the answers.

    Runs are greedy unless ``options`` set a temperature; the other options that are left out are the server's choice.
    With ``closed_book`` the same questions are asked again with search off. ``out`` gets one JSON line per question
    (the closed-book ones go to ``….closed-book.jsonl`` and the summary to ``….summary.json`` beside it); questions that
    it already answers are not asked again. A run that fails counts as wrong; Ctrl-C loses nothing that ``out`` holds.

    Raises:
        DatasetError: the questions or ``out`` cannot be read.
        ConfigurationError: the options or ``out`` do not fit.
        GatewayError: the gateway cannot be reached or refuses everything.
    """
    if options.get("temperature") is None:
        options["temperature"] = 0.0
    max_searches = options.get("max_searches")
    if closed_book and max_searches == 0:
        raise ConfigurationError("max_searches is 0, so every run is closed-book already; leave one of the two out")
    if concurrency < 1 or (limit is not None and limit < 1):
        raise ConfigurationError("concurrency and limit must be at least 1")
    questions = load_questions(dataset, split=split, limit=limit, data_dir=data_dir, data=data)

    asker = Asker(url, api_key, options, extractor, concurrency)
    name = CLOSED_BOOK if max_searches == 0 else SEARCH
    searching, _ = asyncio.run(one_pass(name, questions, asker, chosen_options(options), out, progress))
    closed: Summary | None = None
    if closed_book:
        options = options | RunOptions(max_searches=0)
        asker = Asker(url, api_key, options, extractor, concurrency)
        closed_out = out.with_suffix(f".closed-book{out.suffix}") if out is not None else None
        closed, _ = asyncio.run(one_pass(CLOSED_BOOK, questions, asker, chosen_options(options), closed_out, progress))
    report = Report(dataset=dataset, split=split, url=url, searching=searching, closed_book=closed)
    if out is not None:
        with whole_file(out.with_suffix(".summary.json")) as file:
            file.write(report.to_json().encode())
    return report


async def one_pass(
    name: str, questions: Sequence[Question], asker: Asks, options: dict[str, Any], out: Path | None, progress: bool
) -> tuple[Summary, list[Record]]:
    """Ask what ``out`` does not hold yet; ``options`` tell its records from those of another evaluation."""
    started = time.perf_counter()
    extractor = asker.extractor
    with ExitStack() as stack:
        file = stack.enter_context(RecordFile(out)) if out is not None else None
        records = file.done(questions, options, extractor) if file is not None else {}
        bar = stack.enter_context(_Bar(name, len(questions), records, shown=progress))
        todo = [question for question in questions if question.id not in records]

        def take(record: Record) -> None:
            records[record.id] = record
            if file is not None:
                file.append(record)
            bar.add(record)

        await asker.ask_all(todo, take)
    asked = [records[question.id] for question in questions]
    wall_s = time.perf_counter() - started
    summary = summarize(name, asked, options=options, extractor=extractor, num_asked=len(todo), wall_s=wall_s)
    return summary, asked


class _Bar:
    """The progress bar with the exact match so far."""

    def __init__(self, name: str, total: int, done: dict[str, Record], *, shown: bool) -> None:
        self._right = sum(record.exact_match for record in done.values())
        self._seen = len(done)
        self._failed = 0
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[score]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not shown,
        )
        self._task = self._progress.add_task(name, total=total, completed=len(done), score=self._score())

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, record: Record) -> None:
        self._right += record.exact_match
        self._failed += record.failed
        self._seen += 1
        self._progress.update(self._task, advance=1, score=self._score())

    def _score(self) -> str:
        score = f"EM {self._right / self._seen:.3f}" if self._seen else "EM -"
        return f"{score}, {self._failed} failed" if self._failed else score
