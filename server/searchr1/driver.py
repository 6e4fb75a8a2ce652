"""The only place where the loop awaits: it takes what a rollout asks for to the engine and the retriever.

The gateway drives users' runs with it, the trainer its rollouts, the evaluator its questions.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from searchr1.engines.base import Chunk, Engine, SamplingParams
from searchr1.errors import EngineError, EngineUnavailableError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Finish, FinishReason, Generate, LoopEvent, Passage, Search, Status
from searchr1.retrieval.base import CacheState, FailureKind, Found, Retriever, SearchFailed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DriveOptions:
    """How to sample, how much to retrieve and how long to take. The loop's own bounds are the rollout's ``limits``."""

    session: str
    """The same for every turn of the rollout, so that a router can keep it on one replica."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 3
    """Passages per search."""
    search_timeout_s: float = 10.0
    deadline_s: float | None = None
    """From the start of ``drive``; past it the rollout ends as ``deadline``."""
    stream_interval: int = 1
    """Tokens per chunk of a completion, at least. More is cheaper where nobody watches the text arrive."""
    priority_by_turn: bool = False
    """Let later turns run first on the engine, which keeps their prefixes in its cache."""


@dataclass(frozen=True, slots=True)
class PassagesReceived:
    """A search worked: its passages are in the context now."""

    turn: int
    query: str
    passages: tuple[Passage, ...]
    cache: CacheState
    duration_s: float


@dataclass(frozen=True, slots=True)
class SearchBroke:
    """A search did not work: the rollout went on with an empty result."""

    turn: int
    query: str
    kind: FailureKind
    message: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class EngineBroke:
    """The engine failed: the rollout ends as ``failed``."""

    turn: int
    error: EngineError


DriveEvent = LoopEvent | PassagesReceived | SearchBroke | EngineBroke


@dataclass(slots=True)
class DriveStats:
    """Facts that the rollout itself does not hold. Filled in while ``drive`` runs."""

    num_cached_tokens: int = 0
    """Input tokens that the engine served from its prefix cache, summed over turns."""
    completion_s: list[float] = field(default_factory=list)
    """Wall time of each completion, in turn order."""
    search_s: list[float] = field(default_factory=list)
    """Wall time of each search, in turn order."""


async def drive(
    rollout: Rollout,
    engine: Engine,
    retriever: Retriever,
    options: DriveOptions,
    stats: DriveStats | None = None,
) -> AsyncGenerator[DriveEvent, None]:
    """Run ``rollout`` to its end, yielding events as they happen; ``Finished`` comes last.

    Closing this iterator, or cancelling the task that reads it, aborts whatever is in flight. Engine errors (a
    completion that the engine aborts or never ends among them) and failed searches come as events; nothing but
    cancellation and bugs is raised.
    """
    stats = stats if stats is not None else DriveStats()
    clock = _Clock(options.deadline_s)
    while not isinstance(action := rollout.action, Finish):
        try:
            if isinstance(action, Generate):
                async with aclosing(_generate(rollout, action, engine, options, clock, stats)) as completion:
                    async for event in completion:
                        yield event
            else:
                for event in await _search(rollout, action, retriever, options, clock, stats):
                    yield event
        except _DeadlinePassedError:
            for event in rollout.stop(Status.DEADLINE):
                yield event
        except EngineError as error:
            yield EngineBroke(action.turn, error)
            for event in rollout.stop(Status.FAILED):
                yield event


async def _generate(
    rollout: Rollout, action: Generate, engine: Engine, options: DriveOptions, clock: "_Clock", stats: DriveStats
) -> AsyncGenerator[DriveEvent, None]:
    params = SamplingParams(
        max_tokens=action.max_tokens,
        stop=action.stop,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        stream_interval=options.stream_interval,
    )
    priority = -action.turn if options.priority_by_turn else 0
    started = time.perf_counter()
    reason: FinishReason | None = None
    chunks = engine.generate(action.prompt_ids, params, session=options.session, priority=priority)
    async with aclosing(chunks):
        while (chunk := await clock.bound(lambda: _next_chunk(chunks))) is not None:
            for event in rollout.receive_text(chunk.text, chunk.token_ids):
                yield event
            if chunk.num_cached_tokens is not None:
                stats.num_cached_tokens += chunk.num_cached_tokens
            reason = chunk.finish
            if reason is not None or rollout.completion_settled:
                break
    if not rollout.completion_settled:
        _refuse_torn(reason)
    stats.completion_s.append(time.perf_counter() - started)
    for event in rollout.end_completion(reason or "stop"):
        yield event


def _refuse_torn(reason: FinishReason | None) -> None:
    """A torn completion is no turn: taken as one, it would put a retry text into the trajectory."""
    if reason is None:
        raise EngineError("the engine's stream ended without saying why")
    if reason == "abort":
        raise EngineUnavailableError("the engine aborted the completion")


async def _next_chunk(chunks: AsyncGenerator[Chunk, None]) -> Chunk | None:
    return await anext(chunks, None)


async def _search(
    rollout: Rollout, action: Search, retriever: Retriever, options: DriveOptions, clock: "_Clock", stats: DriveStats
) -> list[DriveEvent]:
    started = time.perf_counter()
    timeout_s = min(options.search_timeout_s, clock.remaining_s())
    outcome = await clock.bound(lambda: retriever.search(action.query, options.top_k, timeout_s))
    duration_s = time.perf_counter() - started
    stats.search_s.append(duration_s)
    if isinstance(outcome, Found):
        passages = outcome.passages[: options.top_k]
        after = rollout.receive_passages(passages)
        return [PassagesReceived(action.turn, action.query, passages, outcome.cache, duration_s), *after]
    return [_broke(action, outcome, duration_s), *rollout.receive_passages(())]


def _broke(action: Search, outcome: SearchFailed, duration_s: float) -> SearchBroke:
    return SearchBroke(action.turn, action.query, outcome.kind, outcome.message, duration_s)


class _DeadlinePassedError(Exception):
    """The run's own deadline passed while it awaited something."""


class _Clock:
    """The run's deadline. It bounds single awaits, never a ``yield``: a consumer's own time must not be cancelled."""

    def __init__(self, deadline_s: float | None) -> None:
        self._ends_at = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s

    def remaining_s(self) -> float:
        """Seconds left, never negative; infinite without a deadline."""
        if self._ends_at is None:
            return float("inf")
        return max(0.0, self._ends_at - asyncio.get_running_loop().time())

    async def bound(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Begin something and await it until the deadline. Raises ``_DeadlinePassedError`` past it."""
        if self._ends_at is None:
            return await begin()
        if self.remaining_s() == 0:  # The scope alone would let through what is ready at once.
            raise _DeadlinePassedError
        scope = asyncio.timeout_at(self._ends_at)
        try:
            async with scope:
                return await begin()
        except TimeoutError as error:
            if scope.expired():
                raise _DeadlinePassedError from error
            raise
