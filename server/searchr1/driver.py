"""The only place where the loop awaits: it takes what a rollout asks for to the engine and the retriever.

The gateway drives users' runs with it, the trainer its rollouts, the evaluator its questions.

A completion that the engine refuses for the moment, or that breaks off, is asked for again within the deadline, and
goes on where it was (``engines/resume.py``).

A search is prefetched: sent as soon as its query is settled, while the engine still writes the closing tag and ends its
stream. If the rollout then asks for another query, or for none, that search is cancelled and awaited.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field

from searchr1.deadline import Deadline, DeadlinePassedError
from searchr1.engines.base import UNSHAPED, Engine, SamplingParams, Shaping
from searchr1.engines.resume import Begun, UnbrokenCompletion
from searchr1.engines.retry_budget import SHARED_BUDGET, RetryBudget
from searchr1.errors import EngineError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import (
    Action,
    Finish,
    FinishReason,
    Generate,
    Passage,
    QuerySettled,
    Search,
    Status,
    VisibleEvent,
)
from searchr1.pacing import UNPACED, Pacing
from searchr1.retrieval.base import CacheState, FailureKind, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.received import received
from searchr1.turns import AtOnce, Turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DriveOptions:
    """Options of sampling, retrieval and deadlines. The loop's own bounds are the rollout's ``limits``."""

    session: str
    """A name that every turn of the rollout carries, so that a router can keep it on one replica."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int | None = None
    shaping: Shaping = UNSHAPED
    top_k: int = 3
    """Passages per search."""
    search_timeout_s: float = 10.0
    deadline_s: float | None = None
    """Seconds from the start of ``drive``; past them the rollout ends as ``deadline``."""
    stream_interval: int = 1
    """Tokens per chunk of a completion, at least. More is cheaper where nobody watches the text arrive."""
    logprobs: bool = False
    """Record the sampled tokens' logprobs in the segments."""
    pacing: Pacing = UNPACED
    """How often the text of a completion is looked at."""
    cache_salt: str | None = None
    """The engine's cached prefixes are shared with runs of the same salt alone."""
    priority_by_turn: bool = False
    """Let later turns run first on the engine, which keeps their prefixes in its cache."""

    def sampling(self, max_tokens: int, stop: tuple[str, ...]) -> SamplingParams:
        """Return what the engine is told of one completion."""
        return SamplingParams(
            max_tokens=max_tokens,
            stop=stop,
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            shaping=self.shaping,
            logprobs=self.logprobs,
            stream_interval=self.stream_interval,
            cache_salt=self.cache_salt,
        )


@dataclass(frozen=True, slots=True)
class PassagesReceived:
    """A search worked: its passages are in the context now.

    They are what the retriever found, less what ``received`` takes out; what the profile neutralizes shows only in the
    context.
    """

    turn: int
    query: str
    passages: tuple[Passage, ...]
    cache: CacheState
    duration_s: float
    """Wall time from sending the query to its outcome."""
    prefetched_s: float = 0.0
    """The part of ``duration_s`` before the rollout asked for the search: the wait that prefetching saved."""
    age_s: float | None = None
    """Seconds since the provider answered, where a cache did."""
    provider: str = ""
    """Name of the provider that found the passages."""


@dataclass(frozen=True, slots=True)
class SearchErrored:
    """A search did not work: the rollout went on with an empty result."""

    turn: int
    query: str
    kind: FailureKind
    message: str
    duration_s: float
    """Wall time from sending the query to its outcome."""
    prefetched_s: float = 0.0
    """The part of ``duration_s`` before the rollout asked for the search."""
    provider: str = ""
    """Name of the provider that failed, where one did."""


@dataclass(frozen=True, slots=True)
class EngineErrored:
    """The engine failed: the rollout ends as ``failed``."""

    turn: int
    error: EngineError


DriveEvent = VisibleEvent | PassagesReceived | SearchErrored | EngineErrored


Follow = Callable[[UnbrokenCompletion], None]
"""Taker of each completion as it is asked for, who may read at any time what has come of it."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What the engine found of a completion's input in its prefix cache."""

    turn: int
    num_prompt_tokens: int
    num_cached_tokens: int


@dataclass(slots=True)
class DriveStats:
    """Facts that the rollout itself does not hold. Filled in while ``drive`` runs."""

    num_cached_tokens: int = 0
    """Input tokens that the engine served from its prefix cache, summed over turns."""
    num_engine_retries: int = 0
    """Times that a completion was asked for again."""
    num_resumes: int = 0
    """Those of them that went on in its middle."""
    num_refused_retries: int = 0
    """Times that the retry budget had none left, so that a completion waited."""
    completion_s: list[float] = field(default_factory=list)
    """Wall time of each completion, in turn order, retries and waits included."""
    search_s: list[float] = field(default_factory=list)
    """Wall time of each search that the rollout asked for, from sending it to its outcome, in turn order."""
    prefetched_s: list[float] = field(default_factory=list)
    """For each of these searches, the part of its wall time before the rollout asked for it."""
    prefixes: list[Prefix] = field(default_factory=list)
    """Of each completion of which the engine told it."""
    waited_s: float = 0.0
    """Seconds for which completions waited for their turn on the engine."""


async def drive(
    rollout: Rollout,
    engine: Engine,
    retriever: Retriever,
    options: DriveOptions,
    stats: DriveStats | None = None,
    turns: Turns | None = None,
    *,
    begun: Begun | None = None,
    follow: Follow | None = None,
    retries: RetryBudget | None = None,
) -> AsyncGenerator[DriveEvent, None]:
    """Run ``rollout`` to its end, yielding events as they happen; ``Finished`` comes last.

    Its turns begin when ``turns`` says so; by default at once. ``begun`` is what another process has read of the
    completion that the rollout waits for: the rollout has its text, but not its ids. ``retries`` bounds how often
    completions are asked for again; by default together with all others of this process.

    Closing this iterator, or cancelling the task that reads it, aborts whatever is in flight. Engine errors (a
    completion that stays broken off among them) and failed searches come as events; nothing but
    cancellation and bugs is raised.
    """
    stats = stats if stats is not None else DriveStats()
    clock = Deadline(options.deadline_s)
    turns = turns or AtOnce(later_first=options.priority_by_turn)
    searcher = _Searcher(retriever, options, clock, stats)
    completions = _Completions(engine, options, turns, begun, follow, retries or SHARED_BUDGET)
    async with aclosing(searcher):
        while not isinstance(action := rollout.action, Finish):
            try:
                if isinstance(action, Generate):
                    async with aclosing(_generate(rollout, action, completions, searcher)) as generating:
                        async for event in generating:
                            yield event
                else:
                    for event in await _search(rollout, action, searcher):
                        yield event
            except DeadlinePassedError:
                await searcher.aclose()
                for event in rollout.stop(Status.DEADLINE):
                    yield event
            except EngineError as error:
                await searcher.aclose()
                yield EngineErrored(action.turn, error)
                for event in rollout.stop(Status.FAILED):
                    yield event


@dataclass(frozen=True, slots=True)
class DriveResult:
    """Failures on the way of a rollout that was driven to its end, and the queries it sent, in turn order."""

    queries: tuple[str, ...]
    num_failed_searches: int
    engine_error: EngineError | None
    """The engine's failure that ended the rollout; what it sampled before is kept."""


async def drive_to_end(
    rollout: Rollout,
    engine: Engine,
    retriever: Retriever,
    options: DriveOptions,
    stats: DriveStats | None = None,
    *,
    hear: Callable[[DriveEvent], None] = lambda _: None,
) -> DriveResult:
    """Run ``rollout`` to its end where nobody watches; see ``drive``. The trajectory is the rollout's own.

    ``hear`` is called with each event, as it comes.
    """
    queries: list[str] = []
    num_failed_searches, engine_error = 0, None
    async with aclosing(drive(rollout, engine, retriever, options, stats)) as events:
        async for event in events:
            hear(event)
            if isinstance(event, PassagesReceived | SearchErrored):
                queries.append(event.query)
                num_failed_searches += isinstance(event, SearchErrored)
            elif isinstance(event, EngineErrored):
                engine_error = event.error
    return DriveResult(tuple(queries), num_failed_searches, engine_error)


def count_begun(rollout: Rollout, begun: Begun) -> None:
    """Give ``rollout`` the ids of a completion that another process began and none goes on with: they were sampled."""
    if begun.ids:
        rollout.receive_text("", begun.ids, begun.logprobs)


@dataclass(slots=True)
class _Completions:
    """What the completions of one run have in common."""

    engine: Engine
    options: DriveOptions
    turns: Turns
    begun: Begun | None
    """What has come of the first one already."""
    follow: Follow | None
    retries: RetryBudget

    async def begin(self, rollout: Rollout, action: Generate, clock: Deadline) -> UnbrokenCompletion:
        """Return the completion that ``action`` asks for, once its turn has come."""
        begun, self.begun = self.begun or Begun(), None
        try:
            priority = await clock.bound(lambda: self.turns.begin(len(action.prompt_ids)))
        except BaseException:
            count_begun(rollout, begun)
            raise
        completion = UnbrokenCompletion(
            self.engine,
            action.prompt_ids,
            self.options.sampling(action.max_tokens, action.stop),
            session=self.options.session,
            priority=priority,
            decode=rollout.spell,
            patient=action.turn > 1,
            left_s=clock.remaining_s,
            budget=self.retries,
            on_break=self.turns.lost,
            begun=begun,
        )
        if self.follow is not None:
            self.follow(completion)
        return completion


async def _generate(
    rollout: Rollout, action: Generate, completions: _Completions, searcher: "_Searcher"
) -> AsyncGenerator[DriveEvent, None]:
    clock, stats, options, turns = searcher.clock, searcher.stats, completions.options, completions.turns
    num_ids = len(action.prompt_ids) - rollout.num_sampled_tokens
    asked = time.perf_counter()
    completion = await completions.begin(rollout, action, clock)
    started = time.perf_counter()
    stats.waited_s += started - asked
    reason: FinishReason | None = None
    async with aclosing(completion.chunks()) as chunks:
        try:
            with clock.reading() as reading, options.pacing.looks(action.stop) as looks:
                while (chunk := await reading.next(chunks)) is not None:
                    for event in rollout.receive_text(chunk.text, chunk.token_ids, chunk.logprobs):
                        if isinstance(event, QuerySettled):
                            searcher.prefetch(event.query)
                        else:
                            yield event
                    if chunk.num_cached_tokens is not None:
                        stats.num_cached_tokens += chunk.num_cached_tokens
                        stats.prefixes.append(Prefix(action.turn, len(action.prompt_ids), chunk.num_cached_tokens))
                    reason = chunk.finish
                    if reason is not None or rollout.completion_settled:
                        break
                    await looks.pause(chunk.text, at_most_s=clock.remaining_s())
        finally:
            if rollout.action is action:
                rollout.receive_text("", *completion.rest)
            stats.num_engine_retries += completion.num_retries
            stats.num_resumes += completion.num_resumes
            stats.num_refused_retries += completion.num_refused
    stats.completion_s.append(time.perf_counter() - started)
    events = rollout.end_completion(reason or "stop")
    turns.end(num_ids + rollout.num_sampled_tokens)
    await searcher.now_asked(rollout.action)
    for event in events:
        yield event


async def _search(rollout: Rollout, action: Search, searcher: "_Searcher") -> list[DriveEvent]:
    turn, query = action.turn, action.query
    outcome, duration_s, prefetched_s = await searcher.outcome(query)
    if isinstance(outcome, SearchFailed):
        errored = SearchErrored(turn, query, outcome.kind, outcome.message, duration_s, prefetched_s, outcome.provider)
        return [errored, *rollout.receive_passages(())]
    passages = received(outcome.passages[: searcher.options.top_k])
    told = PassagesReceived(
        turn, query, passages, outcome.cache, duration_s, prefetched_s, outcome.age_s, outcome.provider
    )
    return [told, *rollout.receive_passages(passages)]


@dataclass(slots=True)
class _Prefetch:
    """A search under way that the rollout may ask for. Times are of ``time.perf_counter``."""

    query: str
    task: asyncio.Task[tuple[SearchOutcome, float]]
    """The outcome and the search's wall time in seconds."""
    started: float
    lead_s: float = 0.0
    """Seconds from sending it to the rollout's asking for it."""


class _Searcher:
    """The searches of one run, at most one at a time; none is left behind."""

    def __init__(self, retriever: Retriever, options: DriveOptions, clock: Deadline, stats: DriveStats) -> None:
        self.options, self.clock, self.stats = options, clock, stats
        self._retriever = retriever
        self._prefetch: _Prefetch | None = None

    def prefetch(self, query: str) -> None:
        """Send a search that the rollout may ask for."""
        if self.clock.remaining_s() > 0:
            self._prefetch = _Prefetch(query, asyncio.create_task(self._timed(query)), time.perf_counter())

    async def now_asked(self, action: Action) -> None:
        """Keep the prefetch if ``action``, which the rollout waits for now, is that search; drop it otherwise."""
        if self._prefetch is None:
            return
        if isinstance(action, Search) and action.query == self._prefetch.query:
            self._prefetch.lead_s = time.perf_counter() - self._prefetch.started
        else:
            await self.aclose()

    async def outcome(self, query: str) -> tuple[SearchOutcome, float, float]:
        """Return the outcome of a search, its wall time in seconds, and how much of that the prefetch saved."""
        prefetch, lead_s = self._prefetch, 0.0
        if prefetch is None:
            found, duration_s = await self.clock.bound(lambda: self._timed(query))
        else:
            try:
                found, duration_s = await self.clock.bound(lambda: prefetch.task)
            finally:
                if prefetch.task.done():
                    self._prefetch = None
            lead_s = prefetch.lead_s
        prefetched_s = min(lead_s, duration_s)
        self.stats.search_s.append(duration_s)
        self.stats.prefetched_s.append(prefetched_s)
        return found, duration_s, prefetched_s

    async def aclose(self) -> None:
        """Cancel the prefetch that nobody asked for, if there is one, and await its end."""
        prefetch, self._prefetch = self._prefetch, None
        if prefetch is None:
            return
        prefetch.task.cancel()
        await asyncio.wait((prefetch.task,))
        if not prefetch.task.cancelled() and (error := prefetch.task.exception()) is not None:
            # A run must not fail by a search that it never asked for.
            logger.error("a prefetched search failed", exc_info=error)

    async def _timed(self, query: str) -> tuple[SearchOutcome, float]:
        started = time.perf_counter()
        timeout_s = min(self.options.search_timeout_s, self.clock.remaining_s())
        outcome = await self._retriever.search(query, self.options.top_k, timeout_s)
        return outcome, time.perf_counter() - started
