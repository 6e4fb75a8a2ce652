"""httpx over aiohttp's connection pool.

httpx's own pool (httpcore 1.0.9) loses a connection when a task is cancelled at one of several awaits, by a client that
leaves or a deadline: it stays open, counts against the pool's bound for ever, and once all are lost nothing can be
asked any more (https://github.com/encode/httpcore/issues/1093). aiohttp's pool is made for asyncio's cancellations.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

import aiohttp
import httpx

_NOT_ADDED: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add by itself."""


class PooledTransport(httpx.AsyncBaseTransport):
    """Sends the requests of one ``httpx.AsyncClient``. It connects with the first; HTTP/1.1 alone, no proxies.

    At most ``max_connections`` are open; an idle one is kept for ``keepalive_s`` seconds.
    """

    def __init__(self, *, max_connections: int, keepalive_s: float) -> None:
        self._max_connections, self._keepalive_s = max_connections, keepalive_s
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx.AsyncBaseTransport``."""
        session = self._session = self._session or self._opened()
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        told = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            total=None, connect=told.get("pool"), sock_connect=told.get("connect"), sock_read=told.get("read")
        )
        data = await request.aread()
        with _told_as_httpx_does():
            response = await session.request(
                request.method,
                str(request.url),
                data=data or None,
                headers=headers,
                timeout=timeout,
                ssl=self._tls_context() if request.url.scheme == "https" else True,
                allow_redirects=False,
                skip_auto_headers=_NOT_ADDED,
            )
        return httpx.Response(response.status, headers=list(response.raw_headers), stream=_Body(response))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keepalive_s)
        # Packed bodies are httpx's to unpack, and cookies are nobody's.
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)

    def _tls_context(self) -> ssl.SSLContext:
        """Return httpx's own, which trusts whom httpx trusts."""
        self._tls = self._tls or httpx.create_ssl_context(trust_env=False)
        return self._tls


class _Body(httpx.AsyncByteStream):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _told_as_httpx_does():
            async for data in self._response.content.iter_any():
                yield data

    async def aclose(self) -> None:
        """Close the connection, unless all was read. Nothing is awaited, so that no cancellation can prevent it."""
        self._response.close()


@contextmanager
def _told_as_httpx_does() -> Iterator[None]:
    """Raise aiohttp's errors as httpx's."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ReadTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error)) from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError, aiohttp.ClientResponseError) as error:
        raise httpx.RemoteProtocolError(str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error)) from error
    except ValueError as error:  # A host's name that no name server takes.
        raise httpx.ConnectError(str(error)) from error
