"""Streaming responses over encoded Server-Sent Events, with heartbeats and a clean end however they end.

What a frame costs here is a write and a look at the clock: one timer a stream, not one a frame, minds the heartbeats
and clients that take nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from searchr1.flag import Flag
from searchr1.gateway.sse import HEARTBEAT
from searchr1.http_server.pieces import SendPiece, way_of
from searchr1.http_server.unwound import when_unwound

T = TypeVar("T")

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing for so long has left; until then it costs the memory of its run."""

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    # nginx would collect the events first.
    "x-accel-buffering": "no",
}


async def event_stream(frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> "EventStream":
    """Return a streaming response over ``frames``, which are closed as soon as the client leaves.

    The first frame is awaited here, so that a refusal is still an HTTP error and not a broken stream.
    """
    return resumed_stream(await anext(frames), frames, heartbeat_s=heartbeat_s)


def resumed_stream(first: bytes, frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> "EventStream":
    """Return a streaming response over ``first``, which ``frames`` have given already, and what is left of them."""
    return EventStream(frames, first, heartbeat_s=heartbeat_s)


def followed_stream(frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> "EventStream":
    """Return a streaming response that sends its headers before the first of ``frames``, which may never come."""
    return EventStream(frames, b"", heartbeat_s=heartbeat_s)


class EventStream(Response):
    """A stream that closes ``frames`` however it ends: the client may leave before it has begun, or read nothing."""

    def __init__(self, frames: AsyncGenerator[bytes, None], first: bytes, *, heartbeat_s: float) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(_HEADERS)
        self._frames, self._first = frames, first
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0
        self._sending_since: float | None = None
        self._beating: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._took_nothing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the frames until their end, or until the client leaves.

        Raises:
            ClientDisconnect: the client took nothing for ``SEND_TIMEOUT_S``.
        """
        await when_unwound(self._stream, scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(way_of(scope, send), send))
        leaving = asyncio.create_task(client_left(receive))
        # ``asyncio.wait`` would hold several times as much to the stream's end.
        is_over = Flag()
        for task in (sending, leaving):
            task.add_done_callback(lambda _: is_over.set())
        self._mind(sending, send)
        try:
            await is_over.wait()
            if self._took_nothing:
                raise ClientDisconnect
            if sending.done():
                sending.result()
        finally:
            await self._close(sending, leaving)

    async def _close(self, *tasks: asyncio.Task[None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        ending = [*tasks, self._beating] if self._beating is not None else list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        await self._frames.aclose()

    async def _send_all(self, send_piece: SendPiece, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if self._first:
            await self._send(send_piece, self._first)
        async for frame in self._frames:
            await self._send(send_piece, frame)
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Callable[[T], Awaitable[None]], what: T) -> None:
        if self._beating is not None:
            await asyncio.wait((self._beating,))
        self._sending_since = self._sent_at = self._loop.time()
        await send(what)
        self._sending_since = None

    def _mind(self, sending: asyncio.Task[None], send: Send) -> None:
        """Send a heartbeat if one is due, let a client go that takes nothing, and come again."""
        now = self._loop.time()
        if self._sending_since is not None:
            due = self._sending_since + SEND_TIMEOUT_S
            if due <= now:
                self._took_nothing = True
                sending.cancel()
                return
        else:
            # The first call finds nothing sent, and is no reason for a heartbeat.
            beat_at = (self._sent_at or now) + self._heartbeat_s
            if beat_at <= now and self._beating is None:
                self._beating = asyncio.create_task(self._beat(send))
                beat_at = now + self._heartbeat_s
            due = min(beat_at, now + SEND_TIMEOUT_S)
        self._timer = self._loop.call_at(due, self._mind, sending, send)

    async def _beat(self, send: Send) -> None:
        self._sending_since = self._sent_at = self._loop.time()
        try:
            await send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        finally:
            self._sending_since = self._beating = None


async def client_left(receive: Receive) -> None:
    """Return once the client of a request has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
