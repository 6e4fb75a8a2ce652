"""The client of upstream Search-R1's ``POST /retrieve``, tolerant of the variants that its servers answer with.

Request: ``{"queries": [query], "topk": k, "return_scores": true}``. Response: ``{"result": [[entry, ...]]}``, where an
entry is ``{"document": d, "score": s}``, ``{"document": d}`` or ``d`` itself, and ``d`` is an object with ``contents``
or with ``title`` and ``text`` (``id`` and ``url`` optional), or the contents as a plain string.
"""

import math
from typing import Any

import httpx

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.documents import ID_FIELDS, passage_of
from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import MAX_BODY_BYTES, Reply, RestApi, RestError, finite
from searchr1.retrieval.registry import ProviderSpec, provider
from searchr1.retrieval.text import clean_text

_LABEL = "the retriever"


class RetrieveClient:
    """A ``Retriever`` over a ``/retrieve`` URL.

    It uses the pooled ``client`` of the caller, or owns one until ``aclose``. ``timeout_s`` bounds a search whose
    deadline is further away. ``max_body_bytes`` bounds what is read of a response. ``api_key`` is sent as a bearer
    token. An owned client ignores proxy variables and ``.netrc``. Raises ``ConfigurationError`` for a URL that cannot
    be called or a key that cannot be sent.
    """

    def __init__(
        self,
        url: str,
        *,
        client: httpx.AsyncClient | None = None,
        timeout_s: float = math.inf,
        max_body_bytes: int = MAX_BODY_BYTES,
        api_key: str | None = None,
    ) -> None:
        self._api = RestApi(
            url,
            label=_LABEL,
            provider="",
            headers={"Authorization": f"Bearer {usable_key(api_key, _LABEL)}"} if api_key else None,
            client=client,
            max_body_bytes=max_body_bytes,
        )
        if httpx.URL(url).path in ("", "/"):
            raise ConfigurationError("the URL of the retriever has no path; upstream's servers answer at /retrieve")
        self._timeout_s = timeout_s

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. An empty query is sent like any other, as in training."""
        if k < 1:
            return Found(())
        return await self._api.within(min(deadline_s, self._timeout_s), self._search(clean_text(query), k))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _search(self, query: str, k: int) -> tuple[Passage, ...]:
        request = {"queries": [query], "topk": k, "return_scores": True}
        reply = await self._api.post("", request)
        if self._api.take_slash(reply):
            reply = await self._api.post("", request)
        return _passages(reply)[:k]


def _passages(reply: Reply) -> tuple[Passage, ...]:
    """Read the one query's passages. Raises ``RestError`` for anything that is not the protocol."""
    if not reply.is_success:
        raise reply.error()
    if reply.body is None:
        raise RestError("bad_response", f"answered with something that is not JSON ({reply.content_type})")
    result = reply.body.get("result") if isinstance(reply.body, dict) else None
    if not isinstance(result, list) or len(result) != 1 or not isinstance(result[0], list):
        raise RestError("bad_response", 'answered without a "result" list of one list')
    return tuple(_passage(entry) for entry in result[0])


def _passage(entry: Any) -> Passage:
    wrapped = isinstance(entry, dict) and "document" in entry
    document = entry["document"] if wrapped else entry
    score = finite(entry.get("score")) if isinstance(entry, dict) else None
    if isinstance(document, str):
        return Passage.from_contents(clean_text(document), score=score)
    passage = passage_of(document, _id(document), score) if isinstance(document, dict) else None
    if passage is None:
        said = 'answered with a document that is neither text nor an object with "contents", or "title" and "text"'
        raise RestError("bad_response", said)
    return passage


def _id(document: dict[str, Any]) -> str:
    identifier = next((document[name] for name in ID_FIELDS if document.get(name) is not None), "")
    return str(identifier)


@provider("retrieve", form="http://HOST:PORT/retrieve", needs_target=True, key="optional", schemes=("http", "https"))
async def open_retrieve(spec: ProviderSpec) -> RetrieveClient:
    """Open a client of a ``/retrieve`` server."""
    return RetrieveClient(spec.target, timeout_s=spec.timeout_s, api_key=spec.secret)
