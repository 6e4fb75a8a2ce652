"""Many questions at once to an engine, by one method, with no gateway between."""

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from searchr1.errors import EngineUnavailableError
from searchr1.evaluation.baselines.trial import MethodOptions, Tools
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.engine.answer import answer
from searchr1.evaluation.gateway.asker import FAILURES_IN_A_ROW, Take
from searchr1.evaluation.records import Extractor, Record, outcome_record


class EngineAsker:
    """One pass over questions by one method. ``record_options`` go into the records as they are."""

    def __init__(
        self,
        method: str,
        tools: Tools,
        options: MethodOptions,
        *,
        model: str,
        record_options: dict[str, Any],
        extractor: Extractor = "own",
        concurrency: int = 16,
    ) -> None:
        self.method = method
        self.extractor: Extractor = extractor
        self._tools, self._options, self._model = tools, options, model
        self._record_options, self._concurrency = record_options, concurrency
        self._failures_in_a_row = 0

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Ask ``questions``, ``concurrency`` at a time, and hand each record to ``take`` as its run ends.

        Raises:
            EngineUnavailableError: run after run failed.
        """
        waiting = iter(questions)
        gave_up: ExceptionGroup[EngineUnavailableError] | None = None
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(min(self._concurrency, len(questions))):
                    workers.create_task(self._work(waiting, take))
        except* EngineUnavailableError as group:
            gave_up = group
        if gave_up is not None:
            raise gave_up.exceptions[0]

    async def _work(self, waiting: Iterator[Question], take: Take) -> None:
        for question in waiting:
            record = await self._ask(question)
            take(record)
            self._count(record)

    async def _ask(self, question: Question) -> Record:
        session = f"{self.method}-{secrets.token_hex(8)}"
        outcome = await answer(self.method, question.question, self._tools, self._options, session=session)
        return outcome_record(
            question,
            outcome,
            method=self.method,
            model=self._model,
            options=self._record_options,
            extractor=self.extractor,
        )

    def _count(self, record: Record) -> None:
        self._failures_in_a_row = self._failures_in_a_row + 1 if record.failed else 0
        if self._failures_in_a_row >= max(FAILURES_IN_A_ROW, 2 * self._concurrency):
            message = f"{self._failures_in_a_row} questions in a row failed, the last with: {record.error}"
            raise EngineUnavailableError(message)
