"""Serper: Google's results by ``POST /search``."""

from collections.abc import Iterable
from typing import Unpack

from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.web import WebOptions, WebProvider, WebResult, object_of, objects, text_of
from searchr1.retrieval.registry import ProviderSpec, provider

URL = "https://google.serper.dev"


class SerperProvider(WebProvider):
    """A ``Retriever`` over Serper. Raises ``ConfigurationError`` for a key that cannot be sent.

    A direct answer, and what Google knows of the thing asked for, come first.
    """

    name, label = "serper", "Serper"

    def __init__(
        self, api_key: str, *, gl: str = "", hl: str = "", base_url: str = URL, **options: Unpack[WebOptions]
    ) -> None:
        self._options = {name: value for name, value in (("gl", gl), ("hl", hl)) if value}
        super().__init__(base_url, headers={"X-API-KEY": usable_key(api_key, self.label)}, **options)

    async def _results(self, query: str, k: int) -> Iterable[WebResult]:
        # Ten are one credit, however few are asked for.
        body = object_of(await self._api.post("search", {"q": query, "num": max(10, k), **self._options}))
        return [*_boxes(body), *map(_result, objects(body.get("organic", []), "organic"))]


def _boxes(body: dict[str, object]) -> list[WebResult]:
    answer, known = body.get("answerBox"), body.get("knowledgeGraph")
    boxes = []
    if isinstance(answer, dict):
        text = text_of(answer.get("answer")) or text_of(answer.get("snippet"))
        boxes.append(WebResult(text_of(answer.get("title")), text_of(answer.get("link")), text))
    if isinstance(known, dict):
        link = text_of(known.get("descriptionLink")) or text_of(known.get("website"))
        boxes.append(WebResult(text_of(known.get("title")), link, text_of(known.get("description"))))
    return [box for box in boxes if box.text]


def _result(item: dict[str, object]) -> WebResult:
    return WebResult(text_of(item.get("title")), text_of(item.get("link")), text_of(item.get("snippet")))


@provider("serper", form="serper:", key="required")
async def open_serper(spec: ProviderSpec) -> SerperProvider:
    """Open Serper, with Google's options ``gl`` (country) and ``hl`` (language)."""
    options = spec.take("gl", "hl")
    return SerperProvider(
        spec.require_secret(),
        gl=options.get("gl", ""),
        hl=options.get("hl", ""),
        max_chars=spec.passage_chars,
    )
