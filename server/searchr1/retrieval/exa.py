"""Exa: ``POST /search`` with the pages' text."""

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.rest import MAX_BODY_BYTES, RestApi, finite
from searchr1.retrieval.text import clean_text
from searchr1.retrieval.web import WebResult, object_of, objects, passages_from, text_of, usable_key

URL = "https://api.exa.ai"
_MAX_RESULTS = 100


class ExaProvider:
    """A ``Retriever`` over Exa. Raises ``ConfigurationError`` for a key that cannot be sent.

    ``highlights`` takes the excerpts that fit the query instead of the page's start.
    """

    name = "exa"

    def __init__(
        self,
        api_key: str,
        *,
        highlights: bool = False,
        max_chars: int = 2000,
        base_url: str = URL,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._max_chars = max_chars
        self._contents: dict[str, object] = (
            {"highlights": True} if highlights else {"text": {"maxCharacters": max_chars}}
        )
        self._api = RestApi(
            base_url,
            label="Exa",
            provider=self.name,
            headers={"x-api-key": usable_key(api_key, "Exa")},
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
        wanted = {"query": query, "numResults": min(k, _MAX_RESULTS), "type": "auto", "contents": self._contents}
        body = object_of(await self._api.post("search", wanted))
        results = objects(body.get("results"), "results")
        return passages_from((_result(item) for item in results), k, self._max_chars)


def _result(item: dict[str, object]) -> WebResult:
    highlights = item.get("highlights")
    excerpts = " ".join(text_of(part) for part in highlights) if isinstance(highlights, list) else ""
    text = text_of(item.get("text")) or excerpts or text_of(item.get("summary"))
    return WebResult(text_of(item.get("title")), text_of(item.get("url")), text, finite(item.get("score")))
