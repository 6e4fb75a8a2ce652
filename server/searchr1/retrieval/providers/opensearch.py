"""OpenSearch and Elasticsearch over REST, by BM25 or by nearest neighbors, for a corpus larger than one machine.

Request: ``POST /INDEX/_search``. BM25 is a ``multi_match`` over text fields, alike on both. Nearest neighbors are a
``knn`` query on OpenSearch and a ``knn`` section beside the query on Elasticsearch, over a field of vectors that the
corpus was indexed with. A document holds ``contents``, or ``title`` and ``text``, and optionally ``url``.

Answers from some of the shards only are failures: kept in a cache, they would hide passages for a long time.
"""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Literal
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
from searchr1.retrieval.text import clean_text

Flavor = Literal["opensearch", "elasticsearch"]
Mode = Literal["bm25", "knn"]
_BM25_FIELDS = ("contents", "title", "text")
"""Fields that BM25 searches. Those that an index lacks are passed over, so these suit both shapes of a document."""

_MAX_HITS = 10_000
"""``index.max_result_window``: larger requests are refused."""
_CANDIDATES_PER_HIT = 10
_MIN_CANDIDATES = 100
_LABELS: Mapping[Flavor, str] = {"opensearch": "OpenSearch", "elasticsearch": "Elasticsearch"}


class OpenSearchRetriever:
    """A ``Retriever`` over one index (or alias) of an OpenSearch or Elasticsearch cluster.

    ``mode="knn"`` needs ``vector_field`` and the ``encoder`` that the field's vectors came from. ``api_key`` is an
    encoded Elasticsearch API key, or ``USER:PASSWORD``, as credentials in ``url`` are. It uses the caller's pooled
    ``client``, or owns one until ``aclose``. Raises ``ConfigurationError`` for a combination that cannot work.
    """

    def __init__(
        self,
        url: str,
        index: str,
        *,
        mode: Mode = "bm25",
        flavor: Flavor = "opensearch",
        vector_field: str | None = None,
        encoder: Encoder | None = None,
        api_key: str | None = None,
        client: httpx.AsyncClient | None = None,
        max_body_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        if not index.strip("/ "):
            raise ConfigurationError(f"{_LABELS[flavor]} needs the name of an index")
        if mode == "knn" and (encoder is None or not vector_field):
            raise ConfigurationError(f"{_LABELS[flavor]} needs an encoder and a vector field to search by vectors")
        basic_auth: tuple[str, str] | None = None
        if api_key and ":" in api_key:  # an encoded key never holds a colon
            user, _, password = api_key.partition(":")
            api_key, basic_auth = None, (user, password)
        self.name = flavor
        self._mode, self._flavor = mode, flavor
        self._vector_field, self._encoder = vector_field, encoder
        self._path = f"{quote(index.strip('/ '), safe=',*')}/_search"
        self._api = RestApi(
            url,
            label=_LABELS[flavor],
            provider=self.name,
            headers={"Authorization": f"ApiKey {usable_key(api_key, _LABELS[flavor])}"} if api_key else None,
            basic_auth=basic_auth,
            client=client,
            max_body_bytes=max_body_bytes,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``. The engine is told the deadline too."""
        if k < 1 or not query.strip():
            return Found((), provider=self.name)
        return await self._api.within(deadline_s, self._search(clean_text(query), min(k, _MAX_HITS), deadline_s))

    async def aclose(self) -> None:
        """Close the connections, unless they are the caller's."""
        await self._api.aclose()

    async def _search(self, query: str, k: int, deadline_s: float) -> tuple[Passage, ...]:
        request = {"size": k, "_source": list(TEXT_FIELDS), **await self._ranking(query, k)}
        if math.isfinite(deadline_s):
            request["timeout"] = f"{max(1, round(deadline_s * 1000))}ms"
        reply = await self._api.post(self._path, request, {"allow_partial_search_results": "false"})
        return _passages(reply)[:k]

    async def _ranking(self, query: str, k: int) -> dict[str, Any]:
        if self._mode == "bm25" or self._encoder is None:
            return {"query": {"multi_match": {"query": query, "fields": list(_BM25_FIELDS)}}}
        vector = (await asyncio.to_thread(self._encoder.encode_queries, [query]))[0].tolist()
        if self._flavor == "opensearch":
            return {"query": {"knn": {self._vector_field: {"vector": vector, "k": k}}}}
        candidates = min(_MAX_HITS, max(_MIN_CANDIDATES, _CANDIDATES_PER_HIT * k))
        field = self._vector_field
        return {"knn": {"field": field, "query_vector": vector, "k": k, "num_candidates": candidates}}


def _passages(reply: Reply) -> tuple[Passage, ...]:
    if not reply.is_success:
        raise _error_of(reply)
    body = reply.json_object()
    if body.get("timed_out") is True:
        raise RestError("timeout", "did not search all of the index in time")
    if failed := _failed_shards(body.get("_shards")):
        raise RestError("unavailable", f"could not search {failed}")
    hits = body.get("hits")
    hits = hits.get("hits") if isinstance(hits, dict) else None
    if not isinstance(hits, list):
        raise RestError("bad_response", 'answered without a list "hits"')
    return tuple(_passage(hit) for hit in hits)


def _passage(hit: object) -> Passage:
    source = hit.get("_source") if isinstance(hit, dict) else None
    if not isinstance(hit, dict) or not isinstance(source, dict):
        raise RestError("bad_response", 'answered with a hit without "_source"; is it switched off for the index?')
    passage = passage_of(source, str(hit.get("_id", "")), finite(hit.get("_score")))
    if passage is None:
        raise RestError("bad_response", 'answered with a document without a text field "contents" or "text"')
    return passage


def _failed_shards(shards: object) -> str:
    """Return "2 of 5 shards (reason)" if any failed, else nothing."""
    failed = shards.get("failed") if isinstance(shards, dict) else 0
    if not isinstance(shards, dict) or not isinstance(failed, int) or failed < 1:
        return ""
    failures = shards.get("failures")
    kinds = [_type_of(f.get("reason")) for f in failures if isinstance(f, dict)] if isinstance(failures, list) else []
    said = ", ".join(sorted({clean_text(kind)[:100] for kind in kinds if kind}))
    return f"{failed} of {shards.get('total', '?')} shards{f' ({said})' if said else ''}"


def _error_of(reply: Reply) -> RestError:
    """Read ``{"error": {"type", "root_cause": [{"type"}]}}``; security plugins answer in plain text."""
    error = reply.body.get("error") if isinstance(reply.body, dict) else None
    causes = error.get("root_cause") if isinstance(error, dict) else None
    kinds = [_type_of(error), *(_type_of(cause) for cause in (causes if isinstance(causes, list) else []))]
    # A full queue is told as 429 or, where every shard's queue was full, as 503 or 500.
    full = [kind for kind in kinds if kind.endswith(("rejected_execution_exception", "circuit_breaking_exception"))]
    if full:
        return reply.error(full[0], "rate_limited")
    return reply.error(next(filter(None, kinds[::-1]), ""))


def _type_of(error: object) -> str:
    found = error.get("type") if isinstance(error, dict) else None
    return found if isinstance(found, str) else ""


@provider("opensearch", form="opensearch:http://HOST:PORT/INDEX", needs_target=True, key="optional")
@provider("elasticsearch", form="elasticsearch:http://HOST:PORT/INDEX", needs_target=True, key="optional")
async def open_opensearch(spec: ProviderSpec) -> OpenSearchRetriever:
    """Open an index of either engine; vectors take the options ``mode=knn``, ``vector_field`` and ``encoder``."""
    options = spec.take("mode", "vector_field", "encoder")
    mode = options.get("mode", "bm25")
    if mode not in ("bm25", "knn"):
        raise ConfigurationError(f"{spec.kind}: mode is {mode!r}; it must be bm25 or knn")
    url, _, index = spec.target.rpartition("/")
    return OpenSearchRetriever(
        url,
        index,
        mode="knn" if mode == "knn" else "bm25",
        flavor="opensearch" if spec.kind == "opensearch" else "elasticsearch",
        vector_field=options.get("vector_field"),
        encoder=await open_encoder(spec) if mode == "knn" else None,
        api_key=spec.secret,
    )
