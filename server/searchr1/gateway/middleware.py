"""Middleware of every request: an id, a boundary for bugs, bounds on bodies, security headers.

It is plain ASGI, so streams flow through.
"""

import asyncio
import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchr1.gateway.errors import RETRY_AFTER_S, ApiError

logger = logging.getLogger(__name__)

_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_RETRY = {"Retry-After": str(RETRY_AFTER_S)}
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestId:
    """Gives each response an ``x-request-id``: the client's own where it is harmless, else a new one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _SAFE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class BugBoundary:
    """Turns an unexpected exception into a 500 in the shape of every error, and logs it."""

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
        except Exception as error:
            if has_begun or scope["type"] != "http":
                raise
            logger.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
            message = "The server met an error of its own; its log has the details."
            await ApiError(500, message, code="internal").response()(scope, receive, send)


class BodyBounds:
    """Refuses bodies over ``max_bytes``, told by their header or found while reading, and ones that take too long.

    It speaks up when somebody reads the body, who has checked by then that the client may send one. Of bodies that have
    not arrived whole, at most ``max_bytes_held`` bytes are kept, all together.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, timeout_s: float, max_bytes_held: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._max_bytes_held = max_bytes_held
        self._num_bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        is_too_large = told.isdigit() and int(told) > self._max_bytes
        num_bytes, num_held, is_whole = 0, 0, False
        ends_at = asyncio.get_running_loop().time() + self._timeout_s

        async def receive_bounded() -> Message:
            nonlocal num_bytes, num_held, is_whole
            if is_whole:
                # After the body, what comes is the client leaving, however late.
                return await receive()
            if is_too_large:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(ends_at):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"The body did not arrive within {self._timeout_s:g} s.") from error
            if message["type"] == "http.request":
                is_whole = not message.get("more_body", False)
                num_new = len(message.get("body", b""))
                num_bytes += num_new
                if num_bytes > self._max_bytes:
                    raise self._too_large()
                num_held += num_new
                self._num_bytes_held += num_new
                if is_whole:
                    self._num_bytes_held -= num_held
                    num_held = 0
                elif self._num_bytes_held > self._max_bytes_held:
                    raise HTTPException(503, "Too many bodies are on their way; try again shortly.", _RETRY)
            return message

        try:
            await self._app(scope, receive_bounded, send)
        finally:
            self._num_bytes_held -= num_held

    def _too_large(self) -> HTTPException:
        # The framework turns other errors of reading a body into a 400.
        return HTTPException(413, f"The body is over {self._max_bytes} bytes.")


class PageHeaders:
    """Security headers on every response: the page runs no code but its own, and nobody frames it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(("/docs", "/redoc")):
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_PAGE_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)
