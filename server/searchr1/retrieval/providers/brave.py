"""Brave Search: ``GET /res/v1/web/search``."""

from collections.abc import Iterable
from typing import Unpack

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.web import (
    WebOptions,
    WebProvider,
    WebResult,
    object_of,
    objects,
    text_of,
)
from searchr1.retrieval.registry import ProviderSpec, provider
from searchr1.retrieval.text import cut_at_word

URL = "https://api.search.brave.com"
_MAX_COUNT = 20
_MAX_QUERY_CHARS, _MAX_QUERY_WORDS = 400, 50
"""Longer queries are refused."""


class BraveProvider(WebProvider):
    """A ``Retriever`` over Brave Search. Raises ``ConfigurationError`` for a key that cannot be sent.

    A query over Brave's limits is cut at a word. ``extra_snippets`` asks for more excerpts of each page; not every plan
    of Brave's has them.
    """

    name, label = "brave", "Brave Search"

    def __init__(
        self,
        api_key: str,
        *,
        country: str = "",
        extra_snippets: bool = False,
        base_url: str = URL,
        **options: Unpack[WebOptions],
    ) -> None:
        self._options = {"country": country} if country else {}
        if extra_snippets:
            self._options["extra_snippets"] = "true"
        key = usable_key(api_key, self.label)
        super().__init__(base_url, headers={"X-Subscription-Token": key, "Accept": "application/json"}, **options)

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        wanted = {
            "q": cut_at_word(" ".join(query.split()[:_MAX_QUERY_WORDS]), _MAX_QUERY_CHARS),
            "count": str(min(k, _MAX_COUNT)),
            "text_decorations": "false",
        }
        wanted |= {"result_filter": "web", **self._options}
        web = object_of(await self._api.get("res/v1/web/search", wanted)).get("web")
        # Brave leaves the section out where it found nothing.
        return map(_result, objects(web.get("results"), "results") if isinstance(web, dict) else ())


def _result(item: dict[str, object]) -> WebResult:
    more = item.get("extra_snippets")
    snippets = [item.get("description"), *(more if isinstance(more, list) else ())]
    text = " ".join(text_of(snippet) for snippet in snippets)
    return WebResult(text_of(item.get("title")), text_of(item.get("url")), text, markup=True)


@provider("brave", form="brave:", key="required")
async def open_brave(spec: ProviderSpec) -> BraveProvider:
    """Open Brave Search, with the options ``country`` and ``extra_snippets=true``."""
    options = spec.take("country", "extra_snippets")
    return BraveProvider(
        spec.require_secret(),
        country=options.get("country", ""),
        extra_snippets=options.get("extra_snippets") == "true",
        max_chars=spec.passage_chars,
    )
