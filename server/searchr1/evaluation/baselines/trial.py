"""One question that a baseline answers: completions and searches, counted, within the bounds of a run."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from searchr1.driver import DriveOptions
from searchr1.engines.base import UNWATCHED_INTERVAL, Engine
from searchr1.errors import EngineError
from searchr1.evaluation.baselines.formats import BaselineFormat
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits, Passage
from searchr1.retrieval.base import Retriever, SearchFailed
from searchr1.retrieval.received import received
from searchr1.rollout import render_prompt
from searchr1.tokenizer import Tokenizer
from searchr1_client.events import RunStatus

MAX_ANSWER_TOKENS = 100
"""Bound of an answer that is forced; a model that does not close the tag is stopped here."""

GREEDY = DriveOptions(session="", temperature=0.0, stream_interval=UNWATCHED_INTERVAL, priority_by_turn=True)
"""Options of sampling, retrieval and deadlines where none are chosen. Each trial puts in its own session."""


class BudgetSpentError(Exception):
    """The run has used up the tokens that it may generate."""


@dataclass(frozen=True, slots=True)
class MethodOptions:
    """Options of a method for one question. The bounds mean what they mean in the loop."""

    drive: DriveOptions = GREEDY
    """Options of sampling, retrieval and deadlines; the session is each trial's own."""
    limits: Limits = field(default_factory=Limits)
    """Bounds of the run. IRCoT takes ``max_turns`` for its retrievals, the one for the question included."""
    baseline_format: BaselineFormat = "plain"
    profile: Profile = SEARCH_R1
    """The policy's profile: of the loop, and of the baselines in the ``search-r1`` format."""


@dataclass(frozen=True, slots=True)
class Tools:
    """The engine, the retriever and the tokenizer that methods work with."""

    engine: Engine
    retriever: Retriever
    tokenizer: Tokenizer


@dataclass(slots=True)
class TrialOutcome:
    """The outcome of one question. Tokens are those of the run's last context."""

    status: RunStatus = "failed"
    answer: str | None = None
    error: str | None = None
    queries: list[str] = field(default_factory=list)
    turns: int = 0
    """Completions."""
    searches: int = 0
    failed_searches: int = 0
    invalid_turns: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    observation_tokens: int = 0
    cached_tokens: int = 0
    retried: bool = False
    """True where the trajectory holds a retry text."""
    duration_s: float = 0.0


Baseline = Callable[["Trial"], Awaitable[str | None]]
"""A baseline in one format: it returns the model's answer. Raises as ``Trial.write`` does."""


class Trial:
    """One question under way. What is written down in ``outcome`` stays when the trial fails."""

    def __init__(self, question: str, tools: Tools, options: MethodOptions, *, session: str) -> None:
        self.question, self.tools, self.options = question, tools, options
        self.drive_options = replace(options.drive, session=session)
        self.outcome = TrialOutcome()
        self._started = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the trial began."""
        return time.perf_counter() - self._started

    async def answer_by(self, baselines: Mapping[BaselineFormat, Baseline]) -> None:
        """Answer by the baseline of the format that the options choose, within their deadline.

        Raises:
            EngineError: the engine failed.
            ReservedTextError: a prompt holds the text of a special token.
        """
        outcome = self.outcome
        try:
            async with asyncio.timeout(self.drive_options.deadline_s):
                outcome.answer = await baselines[self.options.baseline_format](self)
            outcome.status = "exhausted" if outcome.answer is None else "completed"
        except TimeoutError:
            outcome.status = "deadline"
        except BudgetSpentError:
            outcome.status = "truncated"

    def prompt(self, text: str) -> list[int]:
        """Return the ids of one user turn. Raises ``ReservedTextError``."""
        return self._prompt_ids(self.tools.tokenizer.render(text))

    def trained_prompt(self) -> list[int]:
        """Return the ids of the question as the policy's profile asks it. Raises ``ReservedTextError``."""
        profile = self.options.profile
        return self._prompt_ids(render_prompt(profile.prompt(self.question), self.tools.tokenizer, profile))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a piece of the context, tokenized alone."""
        return self.tools.tokenizer.encode(text)

    async def write(self, context: Sequence[int], stop: tuple[str, ...], *, max_tokens: int | None = None) -> str:
        """Return what the model writes after ``context``, up to the first of ``stop``, which is included.

        Raises:
            EngineError: the engine failed.
            BudgetSpentError: no token is left.
        """
        limits, outcome = self.options.limits, self.outcome
        wanted = min(limits.max_completion_tokens, max_tokens or limits.max_completion_tokens)
        if limits.max_run_tokens is not None:
            wanted = min(wanted, limits.max_run_tokens - outcome.completion_tokens)
        if wanted < 1:
            raise BudgetSpentError
        params, session = self.drive_options.sampling(wanted, stop), self.drive_options.session
        prompt_ids = tuple(context)[-limits.max_context_tokens :]
        text, reason = "", None
        async with aclosing(self.tools.engine.generate(prompt_ids, params, session=session)) as chunks:
            async for chunk in chunks:
                text += chunk.text
                outcome.completion_tokens += len(chunk.token_ids)
                outcome.cached_tokens += chunk.num_cached_tokens or 0
                reason = chunk.finish
        if reason is None or reason == "abort":
            raise EngineError("the engine did not finish the completion")
        outcome.turns += 1
        return _cut(text, stop)

    async def search(self, query: str) -> tuple[Passage, ...]:
        """Return the passages for ``query``; a search that fails finds none and is counted."""
        options, outcome = self.drive_options, self.outcome
        outcome.queries.append(query)
        outcome.searches += 1
        found = await self.tools.retriever.search(query, options.top_k, options.search_timeout_s)
        if isinstance(found, SearchFailed):
            outcome.failed_searches += 1
            return ()
        return received(found.passages[: options.top_k])

    async def forced_answer(self, context: Sequence[int], close: str) -> str | None:
        """Return what the model writes after ``context``, up to ``close``, or up to the line's end if that never comes.

        Raises what ``write`` raises.
        """
        text = await self.write(context, (close,), max_tokens=MAX_ANSWER_TOKENS)
        answer, closed, _ = text.partition(close)
        answer = answer.strip()
        return (answer if closed else answer.partition("\n")[0].strip()) or None

    def _prompt_ids(self, rendered: str) -> list[int]:
        ids = self.tools.tokenizer.encode_prompt(rendered)
        self.outcome.prompt_tokens = len(ids)
        return ids


def _cut(text: str, stop: tuple[str, ...]) -> str:
    ends = [at + len(word) for word in stop if (at := text.find(word)) >= 0]
    return text[: min(ends)] if ends else text
