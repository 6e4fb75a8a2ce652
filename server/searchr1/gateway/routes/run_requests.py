"""Runs behind HTTP: the hub that serves a request, a client that leaves, and runs that fail or can't be had."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import TypeVar

from fastapi import Depends, FastAPI, Request
from starlette.requests import ClientDisconnect

from searchr1.gateway.access.auth import caller_of
from searchr1.gateway.candidates import model_for
from searchr1.gateway.errors import ApiError, run_error
from searchr1.gateway.failures import run_failure
from searchr1.gateway.routes.streaming import EventStream, client_left, resumed_stream
from searchr1.gateway.runs.errors import RunsUnreachableError
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.question import AskedQuestion, question_of
from searchr1.gateway.runs.seats import NoSlotError
from searchr1.gateway.runs.store.base import RunUnreadableError
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services, services_of
from searchr1.gateway.sse import JsonResponse
from searchr1.loop.conversation import Turn
from searchr1_client.events import KnownEvent, Run, RunFailed, RunStarted

T = TypeVar("T")
IndexedEvents = AsyncGenerator[tuple[int, KnownEvent], None]
"""Events of the choices of one request, each with the index of its choice."""

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


def has_room(request: Request) -> bool:
    """Return whether a run of the caller's would be taken now by one of the models, if only into its queue."""
    services, caller = services_of(request), caller_of(request)
    return any(
        services.readiness.engines[model.name].takes_runs and model.seats.has_room(caller) for model in services.models
    )


def check_room(request: Request, model: ServedModel) -> None:
    """Refuse a run that ``model`` can't begin now. Raises as ``require_room`` does."""
    services = services_of(request)
    watch = services.readiness.engines[model.name]
    if not watch.takes_runs:
        shed(services, f"engine_{watch.part.reason}")
        failure = run_failure("engine_unavailable")
        raise ApiError(failure.status, failure.message, code="engine_unavailable", retry_after_s=watch.retry_after_s)
    model.seats.check_room(caller_of(request))


def chosen_model(request: Request, asked: str | None, *, conversation: str, before: str | None = None) -> ServedModel:
    """Return the model that answers a run; see ``model_for``. Raises as it and ``require_room`` do."""
    model = model_for(services_of(request), asked, caller_of(request), conversation=conversation, before=before)
    check_room(request, model)
    return model


ROOM = [Depends(require_room)]
"""Dependencies of a route that begins a run."""


def shed(services: Services, reason: str) -> None:
    """Count and log a request for a run that is refused for now."""
    services.metrics.requests_shed.labels(reason).inc()
    services.refusals.note(f"runs are refused: {reason.replace('_', ' ')}")


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

    Raises:
        NoSlotError: it is to be rewritten, and no slot is free.
        ClientDisconnect: the client left meanwhile.
    """
    services = services_of(request)
    finding = question_of(
        turns, model, services.metrics, caller_of(request), deadline_s=deadline_s, tracing=services.tracing
    )
    return await (finding if model.rewriter is None else cancel_on_disconnect(finding, request))


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
    heartbeat_s = services_of(request).settings.heartbeat_s
    read: list[tuple[int, KnownEvent]] = []
    reading = asyncio.ensure_future(_read_beginning(events, read))
    try:
        await cancel_on_disconnect(_wait(reading, min(heartbeat_s, HEADERS_WITHIN_S)), request)
        if read and isinstance(failed := read[-1][1], RunFailed):
            raise run_error(failed.error.code)
    except BaseException:
        await _close(reading, events)
        raise
    return _resumed(read, reading, events)


async def _read_beginning(events: IndexedEvents, read: list[tuple[int, KnownEvent]]) -> None:
    async for indexed in events:
        read.append(indexed)
        if not isinstance(indexed[1], RunStarted):
            return


async def _wait(reading: asyncio.Future[None], at_most_s: float) -> None:
    if (await asyncio.wait({reading}, timeout=at_most_s))[0]:
        reading.result()


async def _resumed(
    read: list[tuple[int, KnownEvent]], reading: asyncio.Future[None], events: IndexedEvents
) -> IndexedEvents:
    try:
        for indexed in (begun := list(read)):
            yield indexed
        await reading
        for indexed in read[len(begun) :]:
            yield indexed
        async for indexed in events:
            yield indexed
    finally:
        await _close(reading, events)


async def _close(reading: asyncio.Future[None], events: IndexedEvents) -> None:
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await events.aclose()


def install_run_error_handlers(app: FastAPI) -> None:
    """Answer the errors of runs that mean the same in every API; each API words ``RunNotFoundError`` itself."""

    async def on_no_slot(request: Request, error: Exception) -> JsonResponse:
        assert isinstance(error, NoSlotError)
        shed(services_of(request), "no_slot")
        return ApiError(503, str(error), code="overloaded", retry_after_s=error.retry_after_s).response()

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
    app.add_exception_handler(RunUnreadableError, on_unreadable)
    app.add_exception_handler(RunsUnreachableError, on_unreachable)
