"""SearXNG's JSON: ``GET /search?q=…&format=json``. Its operator has to list ``json`` among ``search.formats``."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Unpack

import httpx

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import RestError, finite
from searchr1.retrieval.providers.web import WebOptions, WebProvider, WebResult, object_of, objects, text_of
from searchr1.retrieval.registry import ProviderSpec, provider

_PARAMETERS = ("engines", "language", "categories", "time_range", "safesearch")
_FORBIDDEN = "does its settings.yml list json among search.formats?"


class SearxngProvider(WebProvider):
    """A ``Retriever`` over a SearXNG. ``api_key`` is sent as a bearer token to a proxy before it.

    ``base_url`` is where its page is, or its search: ``http://HOST:PORT/search`` is the same. ``parameters`` go with
    every search. Where no page is found, its instant answers and info boxes are the passages.
    """

    name, label = "searxng", "SearXNG"

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        parameters: Mapping[str, str] | None = None,
        **options: Unpack[WebOptions],
    ) -> None:
        self._parameters = {name: value for name, value in (parameters or {}).items() if value}
        headers = {"Accept": "application/json"}
        if api_key:
            headers["Authorization"] = f"Bearer {usable_key(api_key, self.label)}"
        super().__init__(base_url.rstrip("/").removesuffix("/search"), headers=headers, **options)

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        reply = await self._api.get("search", {**self._parameters, "q": query, "format": "json"})
        body = object_of(reply, _FORBIDDEN if reply.status == httpx.codes.FORBIDDEN else "")
        results = [_result(item) for item in objects(body.get("results"), "results")]
        results = results or [*_answers(body.get("answers")), *_infoboxes(body.get("infoboxes"))]
        if not results and (silent := body.get("unresponsive_engines")):
            count = len(silent) if isinstance(silent, list) else 1
            raise RestError("unavailable", f"found nothing, and {count} of its engines did not answer")
        return results


def _result(item: dict[str, object]) -> WebResult:
    return WebResult(
        text_of(item.get("title")), text_of(item.get("url")), text_of(item.get("content")), finite(item.get("score"))
    )


def _answers(answers: object) -> Iterator[WebResult]:
    """Read instant answers: texts, or in later versions objects."""
    for answer in answers if isinstance(answers, list) else []:
        if isinstance(answer, str):
            yield WebResult("", "", answer)
        elif isinstance(answer, dict):
            yield WebResult("", text_of(answer.get("url")), text_of(answer.get("answer")))


def _infoboxes(infoboxes: object) -> Iterator[WebResult]:
    """Read info boxes: a text, and what is known as a table."""
    for box in infoboxes if isinstance(infoboxes, list) else []:
        if isinstance(box, dict):
            urls = [link.get("url") for link in _objects(box.get("urls"))]
            text = " ".join(filter(None, [text_of(box.get("content")), *map(_fact, _objects(box.get("attributes")))]))
            url = text_of(next(iter(urls), None)) or text_of(box.get("id"))
            yield WebResult(text_of(box.get("infobox")), url, text)


def _fact(attribute: dict[str, object]) -> str:
    return f"{text_of(attribute.get('label'))}: {text_of(attribute.get('value'))}."


def _objects(value: object) -> list[dict[str, object]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


@provider("searxng", form="searxng:http://HOST:PORT", needs_target=True, key="optional")
async def open_searxng(spec: ProviderSpec) -> SearxngProvider:
    """Open a SearXNG, with the parameters of its search as options; those of an address copied from elsewhere may stay.

    ``q`` and ``format`` are ours.
    """
    options = spec.take(*_PARAMETERS, "q", "format")
    parameters = {name: value for name, value in options.items() if name in _PARAMETERS}
    return SearxngProvider(spec.target, api_key=spec.secret, parameters=parameters, max_chars=spec.passage_chars)
