"""Runs behind HTTP: the hub that serves a request, a client that leaves, and runs that fail or can't be had."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Protocol, TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.requests import ClientDisconnect

from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.access.key_limits import Limit, LimitReachedError
from searchr1.gateway.access.meters import limit_headers
from searchr1.gateway.candidates import NO_ROOM, TOO_SMALL, count_share, model_for
from searchr1.gateway.errors import ApiError, run_error
from searchr1.gateway.failures import run_failure
from searchr1.gateway.request_scope import spent_s
from searchr1.gateway.routes.streaming import EventStream, client_left, resumed_stream
from searchr1.gateway.runs.errors import NoSlotError, PromptTooLargeError, RunsUnreachableError
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.question import AskedQuestion, question_of
from searchr1.gateway.runs.store.base import RunUnreadableError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services, services_of
from searchr1.gateway.sse import JsonResponse
from searchr1.loop.conversation import Turn
from searchr1_client.events import KnownEvent, Run, RunFailed, RunStarted

T = TypeVar("T")


class IndexedEvents(Protocol):
    """Events of the choices of one request, each with the index of its choice."""

    def __aiter__(self) -> AsyncIterator[tuple[int, KnownEvent]]:
        """See ``AsyncIterator``."""
        ...

    def __anext__(self) -> Awaitable[tuple[int, KnownEvent]]:
        """See ``AsyncIterator``."""
        ...

    async def aclose(self) -> None:
        """End the runs."""
        ...


_STOPPED_FOR_S = 1.0
"""Seconds after which another gateway is expected to be where this one was."""
_LIMIT_CODES: dict[Limit, str] = {
    "requests_per_minute": "rate_limit_exceeded",
    "concurrent_runs": "concurrency_limit_exceeded",
    "tokens_per_day": "token_limit_exceeded",
    "searches_per_window": "search_limit_exceeded",
}
HEADERS_WITHIN_S = 10.0
"""Longest time that a stream's headers wait for the engine's first output: proxies cut what is silent for longer."""


async def require_room(request: Request) -> None:
    """Refuse a run that can't begin now with any model, before its body is read. A dependency of routes that begin one.

    Raises:
        ApiError: the engine is known to be in a state that no run would survive.
        NoSlotError: no slot is free.
    """
    if not has_room(request):
        check_room(request, services_of(request).default)


async def require_within_limits(request: Request) -> None:
    """Count a request against the limits of its key, and refuse one beyond. A dependency of routes that begin a run.

    Raises:
        LimitReachedError: a limit of requests, tokens or searches is reached.
    """
    caller = caller_of(request)
    standing = None
    try:
        standing = await services_of(request).access.limits.request(caller)
    except LimitReachedError as error:
        standing = error.standing
        raise
    finally:
        if standing is not None:
            request.state.limit_headers = limit_headers(caller.limits, standing)


def has_room(request: Request) -> bool:
    """Return whether a run of the caller's would be taken now by one of the models, if only into its queue."""
    services, caller = services_of(request), caller_of(request)
    return not services.readiness.is_closed and any(
        services.readiness.engines[model.name].takes_runs and model.seats.has_room(caller) for model in services.models
    )


def check_room(request: Request, model: ServedModel) -> None:
    """Refuse a run that ``model`` can't begin now. Raises as ``require_room`` does."""
    services = services_of(request)
    if services.readiness.is_closed:
        shed(services, "stopping")
        failure = run_failure("stopping")
        raise ApiError(failure.status, failure.message, code="stopping", retry_after_s=_STOPPED_FOR_S)
    watch = services.readiness.engines[model.name]
    if not watch.takes_runs:
        shed(services, f"engine_{watch.part.reason}")
        failure = run_failure("engine_unavailable")
        raise ApiError(failure.status, failure.message, code="engine_unavailable", retry_after_s=watch.retry_after_s)
    model.seats.check_room(caller_of(request))


async def begun_by_one(
    request: Request,
    asked: str | None,
    begin: Callable[[ServedModel], Awaitable[T]],
    *,
    conversation: str,
    before: str | None = None,
) -> T:
    """Return what ``begin`` makes of a run, with the model that answers it: see ``model_for``.

    A candidate may fill up before the run has its seat, while a question is rewritten. Then the model that was asked
    for begins it, with what is left of its time and with the question as it was rewritten.

    Raises:
        ApiError: no such model, or its engine is known to be in a state that no run would survive.
        NoSlotError: no slot is free.
    """
    services = services_of(request)
    model = model_for(services, asked, caller_of(request), conversation=conversation, before=before)
    check_room(request, model)
    stable = services.models.named(asked)
    if model is stable:
        return await begin(model)
    trouble = ""
    try:
        return await begin(model)
    except NoSlotError as error:
        trouble = TOO_SMALL if isinstance(error, PromptTooLargeError) else NO_ROOM
    finally:
        count_share(services, model, stable, trouble=trouble)
    check_room(request, stable)
    return await begin(stable)


ROOM = [Depends(require_room), Depends(require_within_limits)]
"""Dependencies of a route that begins a run."""


def shed(services: Services, reason: str) -> None:
    """Count and log a request for a run that is refused for now."""
    services.metrics.requests_shed.labels(reason).inc()
    services.refusals.note(f"runs are refused: {reason.replace('_', ' ')}")


def count_limited(services: Services, error: LimitReachedError) -> None:
    """Count a request that is refused because its key is at a limit."""
    services.metrics.requests_limited.labels(error.limit).inc()


def limit_error(error: LimitReachedError) -> ApiError:
    """Return the 429 of a key that is at a limit."""
    code = _LIMIT_CODES[error.limit]
    return ApiError(429, str(error), code=code, param=error.limit, retry_after_s=error.retry_after_s, is_exact=True)


def hub_of(request: Request) -> RunHub:
    """Return the hub of the app that serves ``request``."""
    hub: RunHub = request.app.state.hub
    return hub


def raise_if_failed(run: Run) -> Run:
    """Return ``run`` unless it failed.

    Raises:
        ApiError: it failed; the error says how.
    """
    if run.error is not None:
        raise run_error(run.error.code)
    return run


async def cancel_on_disconnect(work: Coroutine[None, None, T], request: Request) -> T:
    """Await ``work``; cancel it if the client leaves first.

    Raises:
        ClientDisconnect: the client left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(client_left(request.receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def asked_question(
    turns: Sequence[Turn], model: ServedModel, request: Request, *, deadline_s: float | None
) -> AskedQuestion:
    """Return the question that a conversation comes to with ``model``; see ``question_of``.

    What is rewritten stays with the request, which may fall from a candidate to another model.

    Raises:
        NoSlotError: it is to be rewritten, and no slot is free.
        ClientDisconnect: the client left meanwhile.
    """
    finding = question_of(
        turns,
        model,
        services_of(request),
        caller_of(request),
        deadline_s=deadline_s,
        spent_s=spent_s(request.scope),
        rewritten=getattr(request.state, "rewritten", None),
    )
    question = await (finding if model.rewriter is None else cancel_on_disconnect(finding, request))
    request.state.rewritten = question.rewritten
    return question


async def begun_stream(request: Request, run: LiveRun, frames: AsyncGenerator[bytes, None]) -> EventStream:
    """Return a stream of a new run's ``frames``, once it has given some output, or has been silent for long.

    Raises:
        ApiError: the run failed before it gave any, so the failure can still be an HTTP error.
        ClientDisconnect: the client left.
    """
    heartbeat_s = services_of(request).settings.heartbeat_s
    first = await anext(frames)  # Somebody reads the run from here on.
    try:
        failed = await cancel_on_disconnect(run.stillborn(min(heartbeat_s, HEADERS_WITHIN_S)), request)
        if failed is not None:
            raise run_error(failed.error.code)
    except BaseException:
        await frames.aclose()
        raise
    return resumed_stream(first, frames, heartbeat_s=heartbeat_s)


async def begun_events(request: Request, events: IndexedEvents) -> IndexedEvents:
    """Return ``events`` from their first on, once they tell of some output, or have been silent for long.

    Raises:
        ApiError: a choice failed before any output, so the failure can still be an HTTP error.
        ClientDisconnect: the client left.
    """
    begun = _ReadAhead(events)
    try:
        wait_s = min(services_of(request).settings.heartbeat_s, HEADERS_WITHIN_S)
        newest = await cancel_on_disconnect(begun.newest_within(wait_s), request)
        if isinstance(newest, RunFailed):
            raise run_error(newest.error.code)
    except BaseException:
        await begun.aclose()
        raise
    return begun


class _ReadAhead:
    """Events of which a task reads the beginning, up to the first output. What follows is passed on as it is.

    An async generator around them would be one more step of every token's way.
    """

    def __init__(self, events: IndexedEvents) -> None:
        self._events = events
        self._read: deque[tuple[int, KnownEvent]] | None = deque()
        self._reading: asyncio.Task[None] | None = asyncio.create_task(self._read_beginning(self._read))

    async def newest_within(self, at_most_s: float) -> KnownEvent | None:
        """Wait for the first output, at most so long; return the last event by then. Raises what reading raised."""
        assert self._reading is not None
        if (await asyncio.wait({self._reading}, timeout=at_most_s))[0]:
            self._reading.result()
        return self._read[-1][1] if self._read else None

    def __aiter__(self) -> "_ReadAhead":
        return self

    def __anext__(self) -> Awaitable[tuple[int, KnownEvent]]:
        return anext(self._events) if self._read is None else self._next_read(self._read)

    async def aclose(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._events.aclose()

    async def _read_beginning(self, read: deque[tuple[int, KnownEvent]]) -> None:
        async for indexed in self._events:
            read.append(indexed)
            if not isinstance(indexed[1], RunStarted):
                return

    async def _next_read(self, read: deque[tuple[int, KnownEvent]]) -> tuple[int, KnownEvent]:
        if not read and self._reading is not None:
            await self._reading
        if read:
            return read.popleft()
        self._read = self._reading = None  # What is left of either would be held to the stream's end.
        return await anext(self._events)


def install_run_error_handlers(app: FastAPI) -> None:
    """Answer the errors of runs that mean the same in every API; each API words ``RunNotFoundError`` itself."""

    async def on_no_slot(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, NoSlotError)
        shed(services_of(request), "no_slot")
        return ApiError(503, str(error), code="overloaded", retry_after_s=error.retry_after_s).response()

    async def on_too_large(_: Request, error: Exception) -> JsonResponse:
        return ApiError(400, str(error), code="context_length_exceeded").response()

    async def on_limit(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, LimitReachedError)
        count_limited(services_of(request), error)
        return limit_error(error).response()

    async def on_unreachable(_: Request, error: Exception) -> JsonResponse:
        return ApiError(503, str(error), code="store_unavailable").response()

    async def on_unreadable(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, RunUnreadableError)
        hub_of(request).note(error)
        message = (
            f"What is stored as {error.run_id[:100]!r} can't be read: it is damaged, or a newer release wrote it. "
            "Delete it, or ask again."
        )
        return ApiError(404, message, code="run_unreadable").response()

    app.add_exception_handler(NoSlotError, on_no_slot)
    app.add_exception_handler(PromptTooLargeError, on_too_large)
    app.add_exception_handler(LimitReachedError, on_limit)
    app.add_exception_handler(RunUnreadableError, on_unreadable)
    app.add_exception_handler(RunsUnreachableError, on_unreachable)
