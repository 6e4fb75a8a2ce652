"""``SearchR1`` and ``AsyncSearchR1``: clients of one server."""

import asyncio
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import httpx

from searchr1_client._http import default_async_http_client, default_http_client, url_from_environment
from searchr1_client._models import ModelList
from searchr1_client._request import auth_headers, models_call
from searchr1_client._research import AsyncResearch, Research
from searchr1_client._retries import RetryPolicy
from searchr1_client._transport import NOT_GIVEN, AsyncTransport, Config, NotGiven, SyncTransport, check_config
from searchr1_client._version import __version__

DEFAULT_MAX_RETRIES = 2
DEFAULT_RETRY_POLICY = RetryPolicy()

Timeout = float | httpx.Timeout | NotGiven | None
"""A timeout: seconds of silence, httpx's own type, or None for none."""


class Models:
    """Calls about the served models."""

    def __init__(self, transport: SyncTransport) -> None:
        self._transport = transport

    def list(self) -> ModelList:
        """Return the models that the server serves."""
        return self._transport.call(models_call()).parse()


class AsyncModels:
    """The asyncio twin of ``Models``."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def list(self) -> ModelList:
        """See ``Models.list``."""
        return (await self._transport.call(models_call())).parse()


class SearchR1:
    """A client of one server. Close it, or use it as a context manager.

    ``base_url`` and ``api_key`` default to the variables SEARCHR1_URL and SEARCHR1_API_KEY, and then to a server
    on this machine and to no key. ``timeout`` defaults to 5 s for a connection, 11 min for an answer and 2 min of
    silence in a stream. An ``http_client`` of your own stays yours to close, and its timeout counts where none is
    given here.

    Raises:
        SearchR1Error: the address is not one, or the key can't be sent.
        APIConnectionError: a proxy or the certificates that the environment names can't be used.
    """

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int = DEFAULT_MAX_RETRIES,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        default_headers: Mapping[str, str] | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        own_http = http_client is not None
        config = _config(base_url, api_key, timeout, max_retries, retry_policy, default_headers, own_http)
        self._owns_http = http_client is None
        self._bind(SyncTransport(http_client or default_http_client(config.base_url), config))

    def _bind(self, transport: SyncTransport) -> None:
        self._transport = transport
        self.research = Research(transport)
        self.models = Models(transport)

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._transport.config.base_url

    def with_options(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Return a client with other options over the same connections, which stay this one's to close."""
        config = _changed(
            self._transport.config, base_url, api_key, timeout, max_retries, retry_policy, default_headers
        )
        other = object.__new__(type(self))
        other._owns_http = False
        other._bind(SyncTransport(self._transport.http, config))
        return other

    def close(self) -> None:
        """Close the connections, where they are this client's own."""
        if self._owns_http:
            self._transport.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"


class AsyncSearchR1:
    """The asyncio twin of ``SearchR1``."""

    def __init__(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int = DEFAULT_MAX_RETRIES,
        retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY,
        default_headers: Mapping[str, str] | None = None,
        http_client: httpx.AsyncClient | None = None,
    ) -> None:
        own_http = http_client is not None
        config = _config(base_url, api_key, timeout, max_retries, retry_policy, default_headers, own_http)
        self._owns_http = http_client is None
        self._bind(AsyncTransport(http_client or default_async_http_client(config.base_url), config))

    def _bind(self, transport: AsyncTransport) -> None:
        self._transport = transport
        self.research = AsyncResearch(transport)
        self.models = AsyncModels(transport)

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self._transport.config.base_url

    def with_options(
        self,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: Timeout = NOT_GIVEN,
        max_retries: int | None = None,
        retry_policy: RetryPolicy | None = None,
        default_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """See ``SearchR1.with_options``."""
        config = _changed(
            self._transport.config, base_url, api_key, timeout, max_retries, retry_policy, default_headers
        )
        other = object.__new__(type(self))
        other._owns_http = False
        other._bind(AsyncTransport(self._transport.http, config, self._transport.leaving))
        return other

    async def close(self) -> None:
        """Wait for cancels that are under way; close the connections, where they are this client's own."""
        await self._transport.to_end(self._close(set(self._transport.leaving)))

    async def _close(self, leaving: set[asyncio.Task[None]]) -> None:
        if leaving:
            await asyncio.wait(leaving)
        if self._owns_http:
            await self._transport.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self.base_url!r})"


def _config(
    base_url: str | None,
    api_key: str | None,
    timeout: Timeout,
    max_retries: int,
    retry_policy: RetryPolicy,
    default_headers: Mapping[str, str] | None,
    own_http_client: bool,
) -> Config:
    url = url_from_environment() if base_url is None else base_url
    key = os.environ.get("SEARCHR1_API_KEY") if api_key is None else api_key
    check_config(url, key)
    headers = {"User-Agent": f"searchr1-client/{__version__}", **auth_headers(key), **(default_headers or {})}
    return Config(url, headers, timeout, max_retries, retry_policy, own_http_client)


def _changed(
    config: Config,
    base_url: str | None,
    api_key: str | None,
    timeout: Timeout,
    max_retries: int | None,
    retry_policy: RetryPolicy | None,
    default_headers: Mapping[str, str] | None,
) -> Config:
    url = config.base_url if base_url is None else base_url
    check_config(url, api_key)
    kept = {name: value for name, value in config.headers.items() if api_key is None or name != "Authorization"}
    return Config(
        url,
        {**kept, **auth_headers(api_key), **(default_headers or {})},
        config.timeout if isinstance(timeout, NotGiven) else timeout,
        config.max_retries if max_retries is None else max_retries,
        retry_policy or config.retry_policy,
        config.own_http_client,
    )
