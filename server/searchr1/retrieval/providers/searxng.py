"""SearXNG's JSON: ``GET /search?q=…&format=json``. Its operator has to list ``json`` among ``search.formats``."""

from collections.abc import Iterable
from typing import Unpack

import httpx

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import RestError, finite
from searchr1.retrieval.providers.web import WebOptions, WebProvider, WebResult, object_of, objects, text_of
from searchr1.retrieval.registry import ProviderSpec, provider

_FORBIDDEN = "does its settings.yml list json among search.formats?"


class SearxngProvider(WebProvider):
    """A ``Retriever`` over a SearXNG at ``base_url``. ``api_key`` is sent as a bearer token to a proxy before it."""

    name, label = "searxng", "SearXNG"

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        engines: str = "",
        language: str = "",
        **options: Unpack[WebOptions],
    ) -> None:
        self._options = {name: value for name, value in (("engines", engines), ("language", language)) if value}
        headers = {"Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {usable_key(api_key, self.label)}"
        super().__init__(base_url, headers=headers, **options)

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        reply = await self._api.get("search", {"q": query, "format": "json", **self._options})
        body = object_of(reply, _FORBIDDEN if reply.status == httpx.codes.FORBIDDEN else "")
        results = objects(body.get("results"), "results")
        if not results and (silent := body.get("unresponsive_engines")):
            count = len(silent) if isinstance(silent, list) else 1
            raise RestError("unavailable", f"found nothing, and {count} of its engines did not answer")
        return map(_result, results)


def _result(item: dict[str, object]) -> WebResult:
    return WebResult(
        text_of(item.get("title")), text_of(item.get("url")), text_of(item.get("content")), finite(item.get("score"))
    )


@provider("searxng", form="searxng:http://HOST:PORT", needs_target=True, key="optional")
async def open_searxng(spec: ProviderSpec) -> SearxngProvider:
    """Open a SearXNG, with its options ``engines`` and ``language``."""
    options = spec.take("engines", "language")
    return SearxngProvider(
        spec.target,
        api_key=spec.secret,
        engines=options.get("engines", ""),
        language=options.get("language", ""),
        max_chars=spec.passage_chars,
    )
