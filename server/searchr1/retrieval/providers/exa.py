"""Exa: ``POST /search`` with the pages' text."""

from collections.abc import Iterable
from typing import Unpack

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import finite
from searchr1.retrieval.providers.web import WebOptions, WebProvider, WebResult, object_of, objects, text_of
from searchr1.retrieval.registry import ProviderSpec, provider

URL = "https://api.exa.ai"
_MAX_RESULTS = 100


class ExaProvider(WebProvider):
    """A ``Retriever`` over Exa. Raises ``ConfigurationError`` for a key that cannot be sent.

    ``highlights`` takes the excerpts that fit the query instead of the page's start.
    """

    name, label = "exa", "Exa"

    def __init__(
        self, api_key: str, *, highlights: bool = False, base_url: str = URL, **options: Unpack[WebOptions]
    ) -> None:
        super().__init__(base_url, headers={"x-api-key": usable_key(api_key, self.label)}, **options)
        self._contents = {"highlights": True} if highlights else {"text": {"maxCharacters": self._max_chars}}

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        wanted = {"query": query, "numResults": min(k, _MAX_RESULTS), "type": "auto", "contents": self._contents}
        body = object_of(await self._api.post("search", wanted))
        return map(_result, objects(body.get("results"), "results"))


def _result(item: dict[str, object]) -> WebResult:
    highlights = item.get("highlights")
    excerpts = " ".join(text_of(part) for part in highlights) if isinstance(highlights, list) else ""
    text = text_of(item.get("text")) or excerpts or text_of(item.get("summary"))
    return WebResult(text_of(item.get("title")), text_of(item.get("url")), text, finite(item.get("score")))


@provider("exa", form="exa:", key="required")
async def open_exa(spec: ProviderSpec) -> ExaProvider:
    """Open Exa, with the option ``contents=highlights``."""
    highlights = spec.take("contents").get("contents", "text") == "highlights"
    return ExaProvider(spec.require_secret(), max_chars=spec.passage_chars, highlights=highlights)
