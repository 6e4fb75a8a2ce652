"""One pass over questions: several asked at once, each record kept as its run ends, a bar with the score so far."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from searchr1.errors import EngineUnavailableError, EvaluationError, GatewayError
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.records import Extractor, Record, RecordFile
from searchr1.evaluation.report import Summary, summarize

FAILURES_IN_A_ROW = 20
"""Failed questions that end a pass, or two for each that is asked at once: what answers is broken, not a run."""

Take = Callable[[Record], None]


class Asks(Protocol):
    """A way to have questions answered."""

    extractor: Extractor

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Hand a record of each question to ``take`` as soon as it is there."""
        ...


async def ask_all(
    questions: Sequence[Question],
    ask: Callable[[Question], Awaitable[Record]],
    take: Take,
    *,
    concurrency: int,
    broken: type[EngineUnavailableError | GatewayError],
) -> None:
    """Ask ``questions``, ``concurrency`` at a time, and hand each record to ``take`` as its run ends.

    Raises:
        EngineUnavailableError, GatewayError: what ``ask`` raises; and ``broken`` where question after question failed.
    """
    waiting, failures_in_a_row = iter(questions), 0

    async def work() -> None:
        nonlocal failures_in_a_row
        for question in waiting:
            record = await ask(question)
            take(record)
            failures_in_a_row = failures_in_a_row + 1 if record.failed else 0
            if failures_in_a_row >= max(FAILURES_IN_A_ROW, 2 * concurrency):
                raise broken(f"{failures_in_a_row} questions in a row failed, the last with: {record.error}")

    gave_up: ExceptionGroup[EngineUnavailableError | GatewayError] | None = None
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(min(concurrency, len(questions))):
                workers.create_task(work())
    except* (EngineUnavailableError, GatewayError) as group:
        gave_up = group
    if gave_up is not None:
        raise gave_up.exceptions[0]


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
    if all(record.failed for record in asked):
        raise EvaluationError(f"every run failed, so there is no score; the last one with: {asked[-1].error}")
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
