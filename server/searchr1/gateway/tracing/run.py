"""The trace of one run: ``invoke_agent``, and below it a ``chat`` a completion and an ``execute_tool`` a search.

It is told what the drive does, a few times a turn and never for a token.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
from opentelemetry.trace import Span, SpanKind
from opentelemetry.util.types import AttributeValue

from searchr1.driver import DriveEvent, DriveStats, EngineErrored, Follow
from searchr1.engines.resume import UnbrokenCompletion
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.failures import engine_code, run_failure, search_failure
from searchr1.gateway.tracing import names
from searchr1.gateway.tracing.spans import Spans, context_of, fail, headers_of
from searchr1.loop.types import AnswerCompleted, Finish, Finished, Generate, Passage, Search, Status
from searchr1.retrieval.base import Retriever, SearchFailed, SearchOutcome
from searchr1.trace_context import TRACE_HEADERS
from searchr1.turns import Turns

Replica = Callable[[], str | None]
"""Returns the base URL of the server that a run's completions go to; None for an engine in this process."""


class RunTrace:
    """The spans of one run.

    Args:
        spans: where they are made.
        span: the run's own, which has begun.
        plan: the run.
        stats: those of its drive.
        engine: what spans say of the engine.
        replica: see ``Replica``.
        chat_kind: ``CLIENT``, or ``INTERNAL`` for an engine in this process.
        content: whether texts are recorded.
    """

    def __init__(
        self,
        spans: Spans,
        span: Span,
        plan: Plan,
        stats: DriveStats,
        *,
        engine: Mapping[str, AttributeValue],
        replica: Replica,
        chat_kind: SpanKind,
        content: bool,
    ) -> None:
        self._spans, self._span, self._plan, self._stats = spans, span, plan, stats
        self._engine, self._replica, self._chat_kind, self._content = engine, replica, chat_kind, content
        self._context = context_of(span)
        self._chat: Span | None = None
        self._completion: UnbrokenCompletion | None = None
        self._num_ids, self._wait_s = 0, 0.0
        """Of the turn that has begun: its prompt's tokens, and how long it waited for its turn."""
        self._num_begun = self._num_cached_before = self._num_input_tokens = 0
        self._was_at: dict[str, AttributeValue] = {}
        """Where the open completion was asked for last."""
        self._answer: str | None = None
        self._has_ended = False
        if content:
            span.set_attribute(names.INPUT_MESSAGES, _message("user", plan.question))

    @property
    def traceparent(self) -> str:
        """The run's span, as a header names it."""
        return headers_of(self._span)["traceparent"]

    def watched(self, turns: Turns, retriever: Retriever, follow: Follow | None) -> tuple[Turns, Retriever, Follow]:
        """Return what a drive is given in place of ``turns``, ``retriever`` and ``follow``, so that it is traced."""

        def begun(completion: UnbrokenCompletion) -> None:
            self._begin_chat(completion)
            if follow is not None:
                follow(completion)

        return _WatchedTurns(turns, self), _WatchedRetriever(retriever, self), begun

    def started(self, queue_wait_s: float) -> None:
        """Take the run's start, after so long in the queue."""
        self._span.set_attribute(names.RUN_QUEUE_WAIT_S, round(queue_wait_s, 6))

    def add(self, event: DriveEvent) -> None:
        """Take an event of the run that is no text."""
        if isinstance(event, EngineErrored):
            code = engine_code(event.error)
            self._end_chat("failed", error=code, message=run_failure(code).message)
        elif isinstance(event, AnswerCompleted):
            self._answer = event.text
        elif isinstance(event, Finished) and event.status is Status.DEADLINE:
            self._end_chat("deadline", error="deadline")

    def ended(self, *, failure: str | None, first_text_s: float | None) -> None:
        """Take the end of the run, however it came about; ``failure`` is its code. Only the first call counts."""
        status = self._plan.rollout.status or Status.CANCELLED
        self._end("failed" if failure else status.value, failure, first_text_s)

    def moved(self, *, first_text_s: float | None) -> None:
        """Take that the run goes on elsewhere, with a span of its own. Nothing after that counts."""
        self._end("moved", None, first_text_s)

    def _end(self, outcome: str, failure: str | None, first_text_s: float | None) -> None:
        if self._has_ended:
            return
        self._has_ended = True
        self._end_chat("cancelled")
        rollout, span = self._plan.rollout, self._span
        span.set_attributes(
            {
                names.RUN_OUTCOME: outcome,
                names.RUN_TURNS: rollout.num_turns,
                names.RUN_SEARCHES: rollout.num_searches,
                **_usage(self._num_input_tokens, rollout.num_sampled_tokens, self._stats.num_cached_tokens),
            }
        )
        if first_text_s is not None:
            span.set_attribute(names.RUN_FIRST_TEXT_S, round(first_text_s, 6))
        if self._content and self._answer is not None:
            span.set_attribute(names.OUTPUT_MESSAGES, _message("assistant", self._answer))
        if failure:
            fail(span, failure, run_failure(failure).message)
        span.end()

    def turn_granted(self, num_ids: int, wait_s: float) -> None:
        """Take that a turn may begin, whose prompt has ``num_ids``, after it has waited for so long."""
        self._num_ids, self._wait_s = num_ids, wait_s

    def turn_ended(self) -> None:
        """Take the end of a completion that has come to its own end."""
        action = self._plan.rollout.action
        if isinstance(action, Finish):
            outcome = "answer" if action.status is Status.COMPLETED else action.status.value
        else:
            outcome = "search" if isinstance(action, Search) else "invalid"
        self._end_chat(outcome)

    def turn_broke(self, num_ids: int) -> None:
        """Take that a completion broke off at ``num_ids`` and will be asked for again."""
        if self._chat is not None:
            # Where it was: the pool may have put the run on another replica already.
            self._chat.add_event(names.COMPLETION_BROKE, {names.INPUT_TOKENS: num_ids, **self._was_at})

    def turn_resumes(self, num_ids: int) -> None:
        """Take that the rest of a completion is asked for, maybe on another replica."""
        if self._chat is not None:
            self._was_at = self._place()
            self._chat.add_event(names.COMPLETION_ASKED_AGAIN, {names.INPUT_TOKENS: num_ids, **self._was_at})
            # The reader's task may be another one than at the beginning.
            TRACE_HEADERS.set(headers_of(self._chat))

    def begin_search(self, query: str) -> Span:
        """Return the span of a search that is sent now."""
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL: "search",
            names.TOOL_TYPE: "datastore",
            names.TURN_NUMBER: self._turn,
        }
        if self._content:
            attributes[names.TOOL_ARGUMENTS] = _json({"query": query})
        return self._spans.start(f"{names.EXECUTE_TOOL} search", self._context, attributes, SpanKind.INTERNAL)

    def end_search(self, span: Span, outcome: SearchOutcome | None) -> None:
        """End the span of a search; None for one that was cancelled, such as one sent early that nobody asked for."""
        if outcome is None:
            span.set_attribute(names.SEARCH_OUTCOME, "cancelled")
        elif isinstance(outcome, SearchFailed):
            span.set_attributes({names.SEARCH_OUTCOME: "failed", **_provider(outcome.provider)})
            fail(span, outcome.kind, search_failure(outcome.kind))
        else:
            span.set_attributes(
                {
                    names.SEARCH_OUTCOME: "found" if outcome.passages else "empty",
                    names.SEARCH_CACHE: outcome.cache,
                    names.SEARCH_PASSAGES: len(outcome.passages),
                    **_provider(outcome.provider),
                }
            )
            if self._content:
                span.set_attribute(names.TOOL_RESULT, _json([_shown(passage) for passage in outcome.passages]))
        span.end()

    @property
    def _turn(self) -> int:
        action = self._plan.rollout.action
        return self._plan.rollout.num_turns if isinstance(action, Finish) else action.turn

    def _begin_chat(self, completion: UnbrokenCompletion) -> None:
        self._end_chat("cancelled")
        rollout, options = self._plan.rollout, self._plan.options
        assert isinstance(rollout.action, Generate)
        attributes: dict[str, AttributeValue] = {
            names.OPERATION: names.CHAT,
            **self._engine,
            names.TEMPERATURE: options.temperature,
            names.TOP_P: options.top_p,
            names.MAX_TOKENS: rollout.action.max_tokens,
            names.TURN_NUMBER: rollout.action.turn,
            names.TURN_WAIT_S: round(self._wait_s, 6),
        }
        if options.seed is not None:
            attributes[names.SEED] = options.seed
        if self._content:
            attributes[names.INPUT_MESSAGES] = _message("user", "".join(one.text for one in rollout.segments))
        name = f"{names.CHAT} {self._plan.model}"
        self._chat = self._spans.start(name, self._context, attributes, self._chat_kind)
        self._completion, self._num_begun = completion, len(completion.ids)
        self._num_cached_before, self._was_at = self._stats.num_cached_tokens, self._place()
        TRACE_HEADERS.set(headers_of(self._chat))

    def _end_chat(self, outcome: str, *, error: str | None = None, message: str = "") -> None:
        chat, completion = self._chat, self._completion
        if chat is None or completion is None:
            return
        self._chat = self._completion = None
        self._num_input_tokens += self._num_ids
        chat.set_attributes(
            {
                **_usage(
                    self._num_ids,
                    len(completion.ids) - self._num_begun,
                    self._stats.num_cached_tokens - self._num_cached_before,
                ),
                names.TURN_OUTCOME: outcome,
                names.TURN_RETRIES: completion.num_retries,
                names.TURN_RESUMES: completion.num_resumes,
            }
        )
        # Only now: a completion may go to another replica than the run's last one.
        chat.set_attributes(self._place())
        if error is None and outcome != "cancelled":
            # Where the text had all that was wanted, nobody waited for the engine's own word.
            chat.set_attribute(names.FINISH_REASONS, [completion.finish or "stop"])
        if self._content:
            chat.set_attribute(names.OUTPUT_MESSAGES, _message("assistant", completion.text))
        if error is not None:
            fail(chat, error, message)
        chat.end()

    def _place(self) -> dict[str, AttributeValue]:
        """Return what spans say of where the run's completions go, where that is known."""
        if (replica := self._replica()) is None:
            return {}
        parts = urlsplit(replica)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return {names.TURN_REPLICA: replica, names.SERVER_ADDRESS: parts.hostname or "", names.SERVER_PORT: port}


class _WatchedTurns(Turns):
    """A run's turns, of which its trace is told."""

    def __init__(self, turns: Turns, trace: RunTrace) -> None:
        self._turns, self._trace = turns, trace

    async def begin(self, num_ids: int) -> int:
        """See ``Turns``."""
        wanted = time.perf_counter()
        priority = await self._turns.begin(num_ids)
        self._trace.turn_granted(num_ids, time.perf_counter() - wanted)
        return priority

    def end(self, num_ids: int) -> None:
        """See ``Turns``."""
        self._turns.end(num_ids)
        self._trace.turn_ended()

    async def lost(self, num_ids: int) -> None:
        """See ``Turns``."""
        self._trace.turn_broke(num_ids)
        await self._turns.lost(num_ids)
        self._trace.turn_resumes(num_ids)


class _WatchedRetriever:
    """A ``Retriever`` whose searches are spans, which the servers behind it are told of."""

    def __init__(self, retriever: Retriever, trace: RunTrace) -> None:
        self._retriever, self._trace = retriever, trace

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        span, outcome = self._trace.begin_search(query), None
        before = TRACE_HEADERS.set(headers_of(span))
        try:
            outcome = await self._retriever.search(query, k, deadline_s)
            return outcome
        except asyncio.CancelledError:
            raise
        except Exception:
            fail(span, "internal")
            raise
        finally:
            TRACE_HEADERS.reset(before)
            self._trace.end_search(span, outcome)


def _usage(num_input: int, num_output: int, num_cached: int) -> dict[str, AttributeValue]:
    usage: dict[str, AttributeValue] = {names.INPUT_TOKENS: num_input, names.OUTPUT_TOKENS: num_output}
    # An engine that tells nothing of its cache counts as one without hits.
    return usage | ({names.CACHED_TOKENS: num_cached} if num_cached else {})


def _provider(name: str) -> dict[str, AttributeValue]:
    return {names.SEARCH_PROVIDER: name} if name else {}


def _message(role: str, text: str) -> str:
    return _json([{"role": role, "parts": [{"type": "text", "content": text}]}])


def _shown(passage: Passage) -> dict[str, Any]:
    return {"title": passage.title, "text": passage.text, "url": passage.url, "score": passage.score}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
