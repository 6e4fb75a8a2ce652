"""Qdrant over REST: nearest neighbors from a collection whose payloads hold the passages.

Request: ``POST /collections/NAME/points/query``. A payload holds ``contents``, or ``title`` and ``text``, and
optionally ``url`` and the passage's own ``id``, since Qdrant's point ids are numbers or UUIDs.

REST, not ``qdrant-client``: that brings gRPC and takes a second to import, for one request.
"""

import asyncio
import math
from typing import Any
from urllib.parse import quote

import httpx

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.documents import TEXT_FIELDS, passage_of
from searchr1.retrieval.index.encoder import Encoder, open_encoder
from searchr1.retrieval.keys import usable_key
from searchr1.retrieval.providers.rest import MAX_BODY_BYTES, Reply, RestApi, RestError, finite
from searchr1.retrieval.registry import ProviderSpec, provider

_MAX_POINTS = 10_000


class QdrantRetriever:
    """A ``Retriever`` over one collection, by the vectors of ``encoder``, which also made the collection's.

    ``vector_name`` picks one of a collection's named vectors. It uses the caller's pooled ``client``, or owns one until
    ``aclose``. Raises ``ConfigurationError`` for a combination that cannot work.
    """

    def __init__(
        self,
        url: str,
        collection: str,
        encoder: Encoder,
        *,
        vector_name: str | None = None,
        api_key: str | None = None,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        if not collection:
            raise ConfigurationError("Qdrant needs the name of a collection")
        self.name = "qdrant"
        self._encoder, self._vector_name = encoder, vector_name
        self._path = f"collections/{quote(collection, safe='')}/points/query"
        self._api = RestApi(
            url,
            label="Qdrant",
            provider=self.name,
            headers={"api-key": usable_key(api_key, "Qdrant")} if api_key else None,
            client=client,
            max_body_bytes=max_body_bytes,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. The engine is told the deadline too, in whole seconds."""
        if k < 1 or not query.strip():
            return Found((), provider=self.name)
        return await self._api.within(deadline_s, self._search(query, min(k, _MAX_POINTS), deadline_s))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _search(self, query: str, k: int, deadline_s: float) -> tuple[Passage, ...]:
        vector = (await asyncio.to_thread(self._encoder.encode_queries, [query]))[0].tolist()
        request: dict[str, Any] = {"query": vector, "limit": k, "with_payload": {"include": ["id", *TEXT_FIELDS]}}
        if self._vector_name is not None:
            request["using"] = self._vector_name
        params = {"timeout": str(max(1, math.ceil(deadline_s)))} if math.isfinite(deadline_s) else None
        return _passages(await self._api.post(self._path, request, params))[:k]


def _passages(reply: Reply) -> tuple[Passage, ...]:
    if not reply.is_success:
        raise reply.error(_reason(reply.body))
    result = reply.json_object().get("result")
    points = result.get("points") if isinstance(result, dict) else None
    if not isinstance(points, list):
        raise RestError("bad_response", 'answered without a list "points"')
    return tuple(_passage(point) for point in points)


def _passage(point: object) -> Passage:
    payload = point.get("payload") if isinstance(point, dict) else None
    if not isinstance(point, dict) or not isinstance(payload, dict):
        raise RestError("bad_response", "answered with a point without a payload")
    own = payload.get("id")
    identifier = own if isinstance(own, str | int) else point.get("id", "")
    passage = passage_of(payload, str(identifier), finite(point.get("score")))
    if passage is None:
        raise RestError("bad_response", 'answered with a payload without a text field "contents" or "text"')
    return passage


def _reason(body: object) -> str:
    """Read ``{"status": {"error": …}}``, whose text names collections and dimensions, and no credentials."""
    status = body.get("status") if isinstance(body, dict) else None
    reason = status.get("error") if isinstance(status, dict) else None
    return reason if isinstance(reason, str) else ""


@provider("qdrant", form="qdrant:http://HOST:PORT/COLLECTION?encoder=FOLDER", needs_target=True, key="optional")
async def open_qdrant(spec: ProviderSpec) -> QdrantRetriever:
    """Open a collection, with the options ``encoder`` (required) and ``vector_name``."""
    options = spec.take("encoder", "vector_name")
    url, _, collection = spec.target.rpartition("/")
    encoder = await open_encoder(spec)
    return QdrantRetriever(url, collection, encoder, vector_name=options.get("vector_name"), api_key=spec.secret)
