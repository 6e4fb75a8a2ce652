"""Bounds on the bodies of requests: how large, how slow, and how much of them all at once."""

import asyncio
from collections.abc import Awaitable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_RETRY = {"Retry-After": "2"}


class BodyBounds:
    """Middleware that refuses bodies over ``max_bytes``, told by header or found by reading, and slow ones.

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

        def receive_bounded() -> Awaitable[Message]:
            # After the body, what comes is the client leaving, however late: a stream waits for it to its end.
            return receive() if is_whole else receive_body()

        async def receive_body() -> Message:
            nonlocal num_bytes, num_held, is_whole
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
