"""Streaming responses over encoded Server-Sent Events, with heartbeats and a clean end however they end."""

from collections.abc import AsyncGenerator

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from searchr1.gateway.sse import HEARTBEAT

SEND_TIMEOUT_S = 60.0
"""A client that takes nothing for so long has left; until then it costs the memory of its run."""


async def event_stream(frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> EventSourceResponse:
    """Return a streaming response over ``frames``, which are closed as soon as the client leaves.

    The first frame is awaited here, so that a refusal is still an HTTP error and not a broken stream.
    """
    return resumed_stream(await anext(frames), frames, heartbeat_s=heartbeat_s)


def resumed_stream(first: bytes, frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> EventSourceResponse:
    """Return a streaming response over ``first``, which ``frames`` have given already, and what is left of them."""

    async def all_frames() -> AsyncGenerator[bytes, None]:
        yield first
        async for frame in frames:
            yield frame

    return _EventStream(all_frames(), frames, heartbeat_s=heartbeat_s)


def followed_stream(frames: AsyncGenerator[bytes, None], *, heartbeat_s: float) -> EventSourceResponse:
    """Return a streaming response that sends its headers before the first of ``frames``, which may never come."""
    return _EventStream(frames, frames, heartbeat_s=heartbeat_s)


class _EventStream(EventSourceResponse):
    """Closes ``frames`` however it ends: the client may leave before it has begun, or stay and read nothing."""

    def __init__(
        self, content: AsyncGenerator[bytes, None], frames: AsyncGenerator[bytes, None], *, heartbeat_s: float
    ) -> None:
        super().__init__(
            content, ping=heartbeat_s, ping_message_factory=_heartbeat, sep="\n", send_timeout=SEND_TIMEOUT_S
        )
        self._frames = frames

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError as error:
            raise ClientDisconnect from error
        finally:
            await self._frames.aclose()


def _heartbeat() -> ServerSentEvent:
    return _Heartbeat()


class _Heartbeat(ServerSentEvent):
    """A comment that keeps the connection open."""

    def encode(self) -> bytes:
        return HEARTBEAT
