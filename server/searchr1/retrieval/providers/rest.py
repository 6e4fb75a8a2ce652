"""JSON calls to a search engine over REST: pooled, bounded in time and in size, with typed failures."""

import asyncio
import json
import math
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import FailureKind, Found, SearchFailed, SearchOutcome
from searchr1.retrieval.providers.transport import PooledTransport
from searchr1.retrieval.text import clean_text
from searchr1.retry_after import retry_after_s
from searchr1.trace_context import TRACE_HEADERS

MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_CONNECTIONS = 256
KEEPALIVE_S = 4.0
"""Shorter than uvicorn's 5 s, so that we never send on a connection that the server is about to close."""
_KINDS: Mapping[int, FailureKind] = {408: "timeout", 429: "rate_limited", 504: "timeout"}
"""Statuses whose meaning is not that of their class."""


class RestError(Exception):
    """A call that did not work. ``message`` completes "the engine …" and holds no secrets.

    ``status`` is the HTTP status that says so, if one does.
    """

    def __init__(
        self, kind: FailureKind, message: str, retry_after_s: float | None = None, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.message, self.retry_after_s, self.status = kind, message, retry_after_s, status


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of any status. ``body`` is None where it was not JSON."""

    status: int
    body: Any
    content_type: str
    retry_after_s: float | None = None
    location: str | None = None
    """The address that a redirect names."""

    @property
    def is_success(self) -> bool:
        """True for a status of 2xx."""
        return 200 <= self.status < 300

    def error(self, detail: str = "", kind: FailureKind | None = None) -> RestError:
        """Return the failure that this reply means; ``detail`` is the engine's word for it."""
        if not detail and 300 <= self.status < 400:
            detail = "a redirect, which is not followed: give the address that it leads to"
        said = f" ({clean_text(detail)[:100]})" if detail else ""
        message = f"answered HTTP {self.status}{said}"
        return RestError(kind or _kind_of(self.status), message, self.retry_after_s, self.status)

    def json_object(self) -> dict[str, Any]:
        """Return the body. Raises ``RestError`` if it is not a JSON object."""
        if not isinstance(self.body, dict):
            said = f"answered with something that is not a JSON object ({self.content_type[:80]})"
            raise RestError("bad_response", said)
        return self.body


class RestApi:
    """An engine's HTTP interface.

    ``label`` is the engine's name for people, ``provider`` for metrics. Connections are the caller's ``client``, or our
    own until ``aclose``; our own ignores proxy variables and ``.netrc``. Credentials in ``url`` become HTTP Basic
    authentication. ``headers`` go with every call; a key among them is a ``usable_key``. So do those of the run's trace
    with ``passes_trace``, which is for servers of the operator's own. Raises ``ConfigurationError`` for a URL that
    cannot be called.
    """

    def __init__(
        self,
        url: str,
        *,
        label: str,
        provider: str,
        headers: Mapping[str, str] | None = None,
        basic_auth: tuple[str, str] | None = None,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
        passes_trace: bool = True,
    ) -> None:
        parsed = _parse_url(url, label)
        if parsed.userinfo and basic_auth is None:
            basic_auth = (parsed.username, parsed.password)
        self._url = parsed.copy_with(userinfo=b"", fragment=None)
        self._base = self._url.copy_with(query=None)
        self.provider, self._label = provider, f"{label} at {self._base}"
        self._headers = dict(headers or {})
        self._auth = httpx.BasicAuth(*basic_auth) if basic_auth else httpx.USE_CLIENT_DEFAULT
        self._max_body_bytes, self._passes_trace = max_body_bytes, passes_trace
        self._owns_client = client is None
        self._client = client or httpx.AsyncClient(
            transport=PooledTransport(max_connections=MAX_CONNECTIONS, keepalive_s=KEEPALIVE_S), trust_env=False
        )

    async def within(self, deadline_s: float, work: Awaitable[tuple[Passage, ...]]) -> SearchOutcome:
        """Await ``work`` for at most ``deadline_s`` seconds, and turn what goes wrong into ``SearchFailed``."""
        try:
            async with asyncio.timeout(deadline_s if math.isfinite(deadline_s) else None):
                return Found(await work, provider=self.provider)
        except (TimeoutError, httpx.TimeoutException):
            return self._failed("timeout", f"did not answer within {deadline_s:g} s")
        except httpx.TransportError as error:
            return self._failed("unavailable", f"cannot be reached: {error or type(error).__name__}")
        except httpx.HTTPError as error:
            return self._failed("bad_response", f"answered with something unreadable: {error}")
        except RestError as error:
            return self._failed(error.kind, error.message, error.retry_after_s, error.status)

    def _failed(
        self, kind: FailureKind, message: str, retry_after_s: float | None = None, status: int | None = None
    ) -> SearchFailed:
        return SearchFailed(kind, f"{self._label} {message}", retry_after_s, self.provider, status)

    async def post(self, path: str, payload: object, params: Mapping[str, str] | None = None) -> Reply:
        """POST ``payload`` to ``path`` below the URL, or to the URL itself, with its query, where ``path`` is empty.

        Raises ``RestError`` and httpx's errors, for ``within``.
        """
        return await self._call("POST", path, params, payload)

    async def get(self, path: str, params: Mapping[str, str]) -> Reply:
        """GET ``path`` below the URL. Raises as ``post`` does."""
        return await self._call("GET", path, params)

    def take_slash(self, reply: Reply) -> bool:
        """Add or drop the last slash of the URL for good, if ``reply`` redirects to that; tell whether it does.

        Some servers know one of the two spellings alone. No other redirect is followed: it may lead anywhere.
        """
        if reply.status not in (301, 302, 307, 308) or reply.location is None:
            return False
        path = self._url.path
        other = self._url.copy_with(path=path.rstrip("/") if path.endswith("/") else f"{path}/")
        try:
            asked = self._url.join(reply.location)
        except httpx.InvalidURL:
            return False
        if asked.copy_with(query=None) != other.copy_with(query=None):
            return False
        self._url = other
        return True

    async def _call(
        self, method: str, path: str, params: Mapping[str, str] | None, payload: object | None = None
    ) -> Reply:
        if self._client.is_closed:
            raise RestError("unavailable", "was closed on our side")
        url = f"{str(self._base).rstrip('/')}/{path}" if path else self._url
        headers = {**self._headers, **TRACE_HEADERS.get()} if self._passes_trace else self._headers
        # The deadline around the call is the only timeout; httpx's own would cut a slow but timely answer.
        async with self._client.stream(
            method, url, json=payload, params=params, headers=headers, auth=self._auth, timeout=None
        ) as response:
            body = await self._read(response)
        return Reply(
            response.status_code,
            _parse_json(body),
            clean_text(response.headers.get("content-type", "no content type")),
            retry_after_s(response.headers.get("retry-after")),
            response.headers.get("location"),
        )

    async def _read(self, response: httpx.Response) -> bytes:
        try:
            return await read_body(response, self._max_body_bytes)
        except (RestError, httpx.HTTPError):
            if response.is_success:
                raise
            return b""  # The status and its headers say enough.

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        if self._owns_client:
            await self._client.aclose()


async def read_body(response: httpx.Response, max_bytes: int) -> bytes:
    """Read a body, unpacked. Raises ``RestError`` once it is over ``max_bytes``, and httpx's errors."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > max_bytes:
            raise RestError("bad_response", f"answered with more than {max_bytes} bytes")
    return bytes(body)


def finite(value: object) -> float | None:
    """Return ``value`` as a score, or None for what is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _kind_of(status: int) -> FailureKind:
    if status in _KINDS:
        return _KINDS[status]
    if status >= 500:
        return "unavailable"
    return "rejected" if status >= 400 else "bad_response"


def _parse_json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _parse_url(url: str, label: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"the URL of {label} is malformed: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"the URL of {label} must look like http://HOST:PORT")
    return parsed
