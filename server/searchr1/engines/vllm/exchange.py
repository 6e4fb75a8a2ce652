"""One request to a server that may fall silent or never end: how it is ended from outside, and bounded."""

import asyncio
from collections.abc import Awaitable

import aiohttp

from searchr1.errors import EngineUnavailableError


class Lane:
    """An open completion, as far as it can be ended from outside: while it is sent, and while it is read."""

    __slots__ = ("_response", "_scope", "error", "moved_at")

    def __init__(self) -> None:
        self.error: EngineUnavailableError | None = None
        self.moved_at = 0.0
        """When the newest token was read, by the event loop's clock: 0 before the first, infinite while its reader has
        it and takes no other."""
        self._scope: asyncio.Timeout | None = None
        self._response: aiohttp.ClientResponse | None = None

    async def begin(self, sending: Awaitable[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
        """Await the response's head."""
        async with asyncio.timeout(None) as self._scope:
            self._response = await sending
        self._scope = None
        assert self._response is not None
        return self._response

    def fail(self, error: EngineUnavailableError) -> None:
        """Have the task that reads the completion raise ``error``."""
        self.error = error
        if self._response is not None:
            self._response.content.set_exception(error)
        elif self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())


def is_passing(error: Exception) -> bool:
    """Return whether a connection was refused, closed or reset: a server that restarts, or an idle connection's end."""
    closed = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientPayloadError, ConnectionError)
    return isinstance(error, closed) and not isinstance(error, (TimeoutError, aiohttp.ClientSSLError))


async def start_of_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Return at most the first ``max_bytes`` of a body; what follows is not read."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        if len(body) >= max_bytes:
            response.close()
            break
    return bytes(body[:max_bytes])
