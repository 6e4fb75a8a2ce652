"""Many questions at once to an engine, by one method, with no gateway between."""

import secrets
from collections.abc import Sequence
from typing import Any

from searchr1.errors import EngineUnavailableError
from searchr1.evaluation.asking import Take, ask_all
from searchr1.evaluation.baselines.trial import MethodOptions, Tools
from searchr1.evaluation.datasets import Question
from searchr1.evaluation.engine.answer import answer
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

    async def ask_all(self, questions: Sequence[Question], take: Take) -> None:
        """Ask ``questions``, ``concurrency`` at a time, and hand each record to ``take`` as its run ends.

        Raises:
            EngineUnavailableError: run after run failed.
        """
        await ask_all(questions, self._ask, take, concurrency=self._concurrency, broken=EngineUnavailableError)

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
