"""Middleware of every request: an id, a boundary for bugs, security headers.

It is plain ASGI, so streams flow through. What has nothing to do after the app is no coroutine of its own: a stream
would hold it to its end.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchr1.gateway.errors import ApiError
from searchr1.gateway.log_lines import REQUEST_ID, RUN_ID
from searchr1.gateway.request_scope import note_arrival, note_status
from searchr1.trace_context import TRACE_HEADERS, trace_headers

logger = logging.getLogger(__name__)

_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_NEED_SERVICES = ("/v1", "/admin", "/mcp", "/metrics", "/page.json")
_STARTING_RETRY_S = 5.0
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Middleware that gives each response an ``x-request-id``: the client's own where it is harmless, else a new one.

    Lines of the log carry it too. The client's trace goes on to the servers behind this one. When the request came is
    noted, and the response's status for middleware inside, which need not look at each message then.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)
        note_arrival(scope)
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
        REQUEST_ID.set(request_id)
        RUN_ID.set("")
        TRACE_HEADERS.set(trace_headers(headers))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                note_status(scope, message["status"])
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        return self._app(scope, receive, send_with_id)


class BugBoundary:
    """Middleware that turns an unexpected exception into a 500 in the shape of every error, and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = False

        async def send_noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        except ClientDisconnect:
            return  # Nobody is there to be answered.
        except asyncio.CancelledError:
            if not _is_stopping(scope):
                raise
            return  # The process ends, and does not wait for this client any longer.
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            logger.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            message = "The server met an error of its own; its log has the details."
            await ApiError(500, message, code="internal").response()(scope, receive, send)


class Opening:
    """Middleware that answers 503 ``starting`` until the services are open; probes, page and API document pass."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or is_open(scope["app"]) or not scope["path"].startswith(_NEED_SERVICES):
            return self._app(scope, receive, send)
        message = "The server is starting; try again shortly."
        refusal = ApiError(503, message, code="starting", retry_after_s=_STARTING_RETRY_S).response()
        return refusal(scope, receive, send)


def is_open(app: Any) -> bool:
    """Tell whether the services of a Starlette app are open."""
    return getattr(app.state, "services", None) is not None


def _is_stopping(scope: Scope) -> bool:
    return is_open(scope["app"]) and scope["app"].state.services.readiness.is_stopping


class PageHeaders:
    """Security headers on every response: the page runs no code but its own, and nobody frames it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":
            return self._app(scope, receive, send)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_PAGE_HEADERS)
            await send(message)

        return self._app(scope, receive, send_with_headers)
