"""Serper: Google's results by ``POST /search``."""

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.rest import MAX_BODY_BYTES, RestApi
from searchr1.retrieval.text import clean_text
from searchr1.retrieval.web import WebResult, object_of, objects, passages_from, text_of, usable_key

URL = "https://google.serper.dev"


class SerperProvider:
    """A ``Retriever`` over Serper. Raises ``ConfigurationError`` for a key that cannot be sent.

    A direct answer, and what Google knows of the thing asked for, come first.
    """

    name = "serper"

    def __init__(
        self,
        api_key: str,
        *,
        gl: str = "",
        hl: str = "",
        max_chars: int = 2000,
        base_url: str = URL,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        self._max_chars = max_chars
        self._options = {name: value for name, value in (("gl", gl), ("hl", hl)) if value}
        self._api = RestApi(
            base_url,
            label="Serper",
            provider=self.name,
            headers={"X-API-KEY": usable_key(api_key, "Serper")},
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
        # Ten are one credit, however few are asked for.
        body = object_of(await self._api.post("search", {"q": query, "num": max(10, k), **self._options}))
        organic = [_result(item) for item in objects(body.get("organic", []), "organic")]
        return passages_from([*_boxes(body), *organic], k, self._max_chars)


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
