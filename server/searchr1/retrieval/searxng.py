"""SearXNG's JSON: ``GET /search?q=…&format=json``. Its operator has to list ``json`` among ``search.formats``."""

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.rest import MAX_BODY_BYTES, RestApi, RestError, finite
from searchr1.retrieval.text import clean_text
from searchr1.retrieval.web import WebResult, object_of, objects, passages_from, text_of, usable_key

_FORBIDDEN = "does its settings.yml list json among search.formats?"


class SearxngProvider:
    """A ``Retriever`` over a SearXNG at ``base_url``. ``api_key`` is sent as a bearer token to a proxy before it."""

    name = "searxng"

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        engines: str = "",
        language: str = "",
        max_chars: int = 2000,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._max_chars = max_chars
        self._options = {name: value for name, value in (("engines", engines), ("language", language)) if value}
        headers = {"Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {usable_key(api_key, 'SearXNG')}"
        self._api = RestApi(
            base_url,
            label="SearXNG",
            provider=self.name,
            headers=headers,
            client=client,
            max_body_bytes=max_body_bytes,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        if k < 1 or not query.strip():
            return Found((), provider=self.name)
        return await self._api.within(deadline_s, self._search(clean_text(query), k))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _search(self, query: str, k: int) -> tuple[Passage, ...]:
        reply = await self._api.get("search", {"q": query, "format": "json", **self._options})
        body = object_of(reply, _FORBIDDEN if reply.status == httpx.codes.FORBIDDEN else "")
        results = objects(body.get("results"), "results")
        if not results and (silent := body.get("unresponsive_engines")):
            count = len(silent) if isinstance(silent, list) else 1
            raise RestError("unavailable", f"found nothing, and {count} of its engines did not answer")
        return passages_from((_result(item) for item in results), k, self._max_chars)


def _result(item: dict[str, object]) -> WebResult:
    return WebResult(
        text_of(item.get("title")), text_of(item.get("url")), text_of(item.get("content")), finite(item.get("score"))
    )
