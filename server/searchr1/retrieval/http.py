"""The client of upstream Search-R1's ``POST /retrieve``, as tolerant as its servers in the wild are varied.

Request: ``{"queries": [query], "topk": k, "return_scores": true}``. Response: ``{"result": [[entry, ...]]}``, where an
entry is ``{"document": d, "score": s}``, ``{"document": d}`` or ``d`` itself, and ``d`` is an object with ``contents``
(``id`` and ``url`` optional) or the contents as a plain string.
"""

import asyncio
import json
import math
from typing import Any

import httpx

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.rest import finite, retry_after_s
from searchr1.retrieval.text import clean_text

MAX_BODY_BYTES = 4 * 1024 * 1024
_KEEPALIVE_S = 4.0
"""Shorter than uvicorn's 5 s, so that we never send on a connection that the server is about to close."""
_MAX_CONNECTIONS = 256


class _BadResponseError(ValueError):
    """The server answered with something that is not the protocol. The message completes "the retriever …"."""


class RetrieveClient:
    """A ``Retriever`` over a ``/retrieve`` URL.

    It uses the pooled ``client`` of the caller, or owns one until ``aclose``. ``timeout_s`` bounds a search whose
    deadline is further away. ``max_body_bytes`` bounds what is read of a response. ``api_key`` is sent as a bearer
    token. An owned client ignores proxy variables and ``.netrc``. Raises ``ConfigurationError`` for a URL that cannot
    be called.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient | None = None,
        timeout_s: float = math.inf,
        max_body_bytes: int = MAX_BODY_BYTES,
        api_key: str | None = None,
    ) -> None:
        self._url = _parse_url(url)
        self._name = f"the retriever at {self._url.copy_with(userinfo=b'', query=None, fragment=None)}"
        self._timeout_s, self._max_body_bytes = timeout_s, max_body_bytes
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else None
        self._owns_client = client is None
        self._client = client or httpx.AsyncClient(
            limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_KEEPALIVE_S), trust_env=False
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. An empty query is sent like any other, as in training."""
        if k < 1:
            return Found(())
        if self._client.is_closed:
            return SearchFailed("unavailable", f"{self._name} was closed on our side")
        limit_s = min(deadline_s, self._timeout_s)
        try:
            async with asyncio.timeout(limit_s if math.isfinite(limit_s) else None):
                return await self._post(query, k)
        except (TimeoutError, httpx.TimeoutException):
            return SearchFailed("timeout", f"{self._name} did not answer within {limit_s:g} s")
        except httpx.TransportError as error:
            return SearchFailed("unavailable", f"{self._name} cannot be reached: {error or type(error).__name__}")
        except (_BadResponseError, httpx.HTTPError) as error:
            return SearchFailed("bad_response", f"{self._name} {error}")

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        if self._owns_client:
            await self._client.aclose()

    async def _post(self, query: str, k: int) -> SearchOutcome:
        payload = {"queries": [clean_text(query)], "topk": k, "return_scores": True}
        # The deadline around the call is the only timeout; httpx's own would cut a slow but timely answer.
        async with self._client.stream(
            "POST", self._url, json=payload, headers=self._headers, timeout=None
        ) as response:
            if (failure := self._failure_of(response)) is not None:
                return failure
            body = await self._read(response)
        return Found(_parse_body(body, response.headers.get("content-type", "no content type"))[:k])

    def _failure_of(self, response: httpx.Response) -> SearchFailed | None:
        status = response.status_code
        message = f"{self._name} answered HTTP {status}"
        if response.is_success:
            return None
        if status == httpx.codes.TOO_MANY_REQUESTS:
            return SearchFailed("rate_limited", message, retry_after_s(response.headers.get("retry-after")))
        if status == httpx.codes.GATEWAY_TIMEOUT:
            return SearchFailed("timeout", message)
        if response.is_server_error:
            return SearchFailed("unavailable", message)
        return SearchFailed("rejected" if response.is_client_error else "bad_response", message)

    async def _read(self, response: httpx.Response) -> bytes:
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > self._max_body_bytes:
                raise _BadResponseError(f"answered with more than {self._max_body_bytes} bytes")
        return bytes(body)


def _parse_url(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"the retriever's URL is malformed: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"the retriever's URL must look like http://HOST:PORT/retrieve, got {url!r}")
    if parsed.path in ("", "/"):
        raise ConfigurationError(f"the retriever's URL {url!r} has no path; upstream's servers answer at /retrieve")
    return parsed


def _parse_body(body: bytes, content_type: str) -> tuple[Passage, ...]:
    """Read the one query's passages; raise ``_BadResponseError`` for anything that is not the protocol."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _BadResponseError(f"answered with something that is not JSON ({clean_text(content_type)})") from error
    result = payload.get("result") if isinstance(payload, dict) else None
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], list):
        raise _BadResponseError('answered without a "result" list of one list')
    return tuple(_passage(entry) for entry in result[0])


def _passage(entry: Any) -> Passage:
    wrapped = isinstance(entry, dict) and "document" in entry
    document = entry["document"] if wrapped else entry
    score = finite(entry.get("score")) if isinstance(entry, dict) else None
    if isinstance(document, str):
        return Passage.from_contents(clean_text(document), score=score)
    contents = document.get("contents") if isinstance(document, dict) else None
    if not isinstance(contents, str):
        raise _BadResponseError('answered with a document that is neither text nor an object with "contents"')
    identifier, url = document.get("id"), document.get("url")
    return Passage.from_contents(
        clean_text(contents),
        id="" if identifier is None else clean_text(str(identifier)),
        url=clean_text(url) if isinstance(url, str) else None,
        score=score,
    )
