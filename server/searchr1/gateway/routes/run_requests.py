"""Runs behind HTTP: the hub that serves a request, a client that leaves, and runs that fail or can't be had."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from searchr1.gateway.access.admission import NoSlotError
from searchr1.gateway.errors import ApiError, engine_status
from searchr1.gateway.runs.errors import RunsUnreachableError
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.question import AskedQuestion, question_of
from searchr1.gateway.services import services_of
from searchr1.loop.conversation import Turn
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


async def asked_question(turns: Sequence[Turn], request: Request, *, deadline_s: float | None) -> AskedQuestion:
    """Return the question that a conversation comes to; see ``question_of``.

    Raises:
        NoSlotError: it is to be rewritten, and no slot is free.
        ClientDisconnect: the client left meanwhile.
    """
    services = services_of(request)
    finding = question_of(turns, services, deadline_s=deadline_s)
    return await (finding if services.rewriter is None else cancel_on_disconnect(finding, request))


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def install_run_error_handlers(app: FastAPI) -> None:
    """Answer the errors of runs that mean the same in every API; each API words ``RunNotFoundError`` itself."""

    async def on_no_slot(_: Request, error: Exception) -> JSONResponse:
        return ApiError(503, str(error), code="overloaded").response()

    async def on_unreachable(_: Request, error: Exception) -> JSONResponse:
        return ApiError(503, str(error), code="store_unavailable").response()

    app.add_exception_handler(NoSlotError, on_no_slot)
    app.add_exception_handler(RunsUnreachableError, on_unreachable)
