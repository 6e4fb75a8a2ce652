"""Tavily, through its own SDK on our HTTP client.

The SDK drops ``Retry-After``, gives 432 and 433 (plan and pay-as-you-go limits) the same error as 403, reads bodies of
any size, and without a key takes one from the environment or calls Tavily anonymously. So statuses are read and bodies
are bounded below it, and a missing key is refused.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import httpx

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import (
    KEEPALIVE_S,
    MAX_BODY_BYTES,
    MAX_CONNECTIONS,
    Reply,
    RestError,
    finite,
    read_body,
)
from searchr1.retrieval.providers.transport import PooledTransport
from searchr1.retrieval.providers.web import MAX_CHARS, WebProvider, WebResult, objects, text_of
from searchr1.retrieval.registry import ProviderSpec, provider
from searchr1.retry_after import retry_after_s

Depth = Literal["basic", "advanced", "fast", "ultra-fast"]
Topic = Literal["general", "news", "finance"]
URL = "https://api.tavily.com"
_MAX_RESULTS = 20
_LONGEST_S = 120.0
"""The SDK allows no longer call; a nearer deadline ends one from outside."""
_HINTS = {401: "the key is refused", 403: "the key may not do this", 432: "the plan's limit", 433: "the spending limit"}


class TavilyProvider(WebProvider):
    """A ``Retriever`` over Tavily. Raises ``ConfigurationError`` without a key that can be sent."""

    name, label = "tavily", "Tavily"

    def __init__(
        self,
        api_key: str,
        *,
        depth: Depth = "basic",
        topic: Topic = "general",
        include_domains: Sequence[str] = (),
        exclude_domains: Sequence[str] = (),
        max_chars: int = MAX_CHARS,
        base_url: str = URL,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        from tavily import AsyncTavilyClient  # type: ignore[import-untyped]

        key = usable_key(api_key, self.label)
        self._options: dict[str, Any] = {"search_depth": depth, "topic": topic}
        if include_domains:
            self._options["include_domains"] = list(include_domains)
        if exclude_domains:
            self._options["exclude_domains"] = list(exclude_domains)
        # A client of its own: the SDK writes the key into its headers.
        self._http = httpx.AsyncClient(transport=_Guarded(max_body_bytes), trust_env=False)
        super().__init__(base_url, max_chars=max_chars, client=self._http)
        self._sdk = AsyncTavilyClient(api_key=key, api_base_url=base_url, client=self._http)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        from tavily.errors import TimeoutError as TavilyTimeoutError  # type: ignore[import-untyped]

        if self._http.is_closed:
            raise RestError("unavailable", "was closed on our side")
        try:
            body: Any = await self._sdk.search(
                query, max_results=min(k, _MAX_RESULTS), timeout=_LONGEST_S, **self._options
            )
        except TavilyTimeoutError as error:
            raise RestError("timeout", f"did not answer within {_LONGEST_S:g} s") from error
        # The SDK reads any JSON as an object.
        except (ValueError, RecursionError, AttributeError, TypeError) as error:
            raise RestError("bad_response", "answered with something that is not a JSON object") from error
        return map(_result, objects(body.get("results") if isinstance(body, dict) else None, "results"))


def _result(item: dict[str, object]) -> WebResult:
    return WebResult(
        text_of(item.get("title")), text_of(item.get("url")), text_of(item.get("content")), finite(item.get("score"))
    )


class _Guarded(PooledTransport):
    """A transport that raises ``RestError`` for any status but 200, and for a body that is over the bound unpacked."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(max_connections=MAX_CONNECTIONS, keepalive_s=KEEPALIVE_S)
        self._max_body_bytes = max_body_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        try:
            status = response.status_code
            if status != httpx.codes.OK:
                after_s = retry_after_s(response.headers.get("retry-after"))
                raise Reply(status, None, "", after_s).error(_HINTS.get(status, ""))
            return httpx.Response(status, content=await read_body(response, self._max_body_bytes))
        finally:
            await response.aclose()


@provider("tavily", form="tavily:", key="required")
async def open_tavily(spec: ProviderSpec) -> TavilyProvider:
    """Open Tavily, with the options ``depth``, ``topic``, ``include_domains=a.org+b.org`` and ``exclude_domains``."""
    options: dict[str, Any] = spec.take("depth", "topic", "include_domains", "exclude_domains")
    for name in ("include_domains", "exclude_domains"):
        options[name] = [domain for domain in options.get(name, "").split("+") if domain]
    return TavilyProvider(spec.require_secret(), max_chars=spec.passage_chars, **options)
