"""Runs behind HTTP: the hub that serves a request, a client that leaves, and runs that fail or can't be had."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from searchr1.gateway.access.admission import NoSlotError
from searchr1.gateway.errors import ApiError, engine_status
from searchr1.gateway.runs.errors import RunsUnreachableError
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.store.base import RunUnreadableError
from searchr1_client.events import Run

T = TypeVar("T")


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
        raise ApiError(engine_status(run.error.code), run.error.message, code=run.error.code)
    return run


async def cancel_on_disconnect(work: Coroutine[None, None, T], request: Request) -> T:
    """Await ``work``; cancel it if the client leaves first.

    Raises:
        ClientDisconnect: the client left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def install_run_error_handlers(app: FastAPI) -> None:
    """Answer the errors of runs that mean the same in every API; each API words ``RunNotFoundError`` itself."""

    async def on_no_slot(_: Request, error: Exception) -> JSONResponse:
        return ApiError(503, str(error), code="overloaded").response()

    async def on_unreachable(_: Request, error: Exception) -> JSONResponse:
        return ApiError(503, str(error), code="store_unavailable").response()

    async def on_unreadable(request: Request, error: Exception) -> JSONResponse:
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
