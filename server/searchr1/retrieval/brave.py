"""Brave Search: ``GET /res/v1/web/search``."""

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.rest import MAX_BODY_BYTES, RestApi
from searchr1.retrieval.text import clean_text
from searchr1.retrieval.web import WebResult, object_of, objects, passages_from, text_of, usable_key

URL = "https://api.search.brave.com"
_MAX_COUNT = 20
_MAX_QUERY_CHARS, _MAX_QUERY_WORDS = 400, 50
"""Longer queries are refused."""


class BraveProvider:
    """A ``Retriever`` over Brave Search. Raises ``ConfigurationError`` for a key that cannot be sent.

    ``extra_snippets`` asks for more excerpts of each page; not every plan of Brave's has them.
    """

    name = "brave"

    def __init__(
        self,
        api_key: str,
        *,
        country: str = "",
        extra_snippets: bool = False,
        max_chars: int = 2000,
        base_url: str = URL,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._max_chars = max_chars
        self._options = {"country": country} if country else {}
        if extra_snippets:
            self._options["extra_snippets"] = "true"
        self._api = RestApi(
            base_url,
            label="Brave Search",
            provider=self.name,
            headers={"X-Subscription-Token": usable_key(api_key, "Brave Search"), "Accept": "application/json"},
            client=client,
            max_body_bytes=max_body_bytes,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. A query over Brave's limits is cut at a word."""
        if k < 1 or not query.strip():
            return Found((), provider=self.name)
        return await self._api.within(deadline_s, self._search(_cut(clean_text(query)), k))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _search(self, query: str, k: int) -> tuple[Passage, ...]:
        count = str(min(k, _MAX_COUNT))
        wanted = {"q": query, "count": count, "text_decorations": "false", "result_filter": "web", **self._options}
        body = object_of(await self._api.get("res/v1/web/search", wanted))
        web = body.get("web")
        # Brave leaves the section out where it found nothing.
        results = objects(web.get("results"), "results") if isinstance(web, dict) else []
        return passages_from((_result(item) for item in results), k, self._max_chars)


def _result(item: dict[str, object]) -> WebResult:
    more = item.get("extra_snippets")
    snippets = [item.get("description"), *(more if isinstance(more, list) else ())]
    text = " ".join(text_of(snippet) for snippet in snippets)
    return WebResult(text_of(item.get("title")), text_of(item.get("url")), text, markup=True)


def _cut(query: str) -> str:
    words = " ".join(query.split()[:_MAX_QUERY_WORDS])
    return (
        words
        if len(words) <= _MAX_QUERY_CHARS
        else (words[:_MAX_QUERY_CHARS].rpartition(" ")[0] or words[:_MAX_QUERY_CHARS])
    )
