"""An engine that speaks the wire format of OpenSearch's and Elasticsearch's ``_search``, strict as they are.

BM25 is our own index's; nearest neighbors are exact. A request that a real engine refuses is refused in its words.
"""

import json
from typing import Any

import numpy as np
from aiohttp import web

from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.retrieval.index.encoder import Encoder
from searchr1.retrieval.providers.opensearch import Flavor

KNOWN_KEYS = {"size", "_source", "query", "timeout", "knn"}
INDEX = "world"


class SearchEngine:
    """One index ``world``; ``requests`` are the bodies that came."""

    def __init__(self, flavor: Flavor, index: LocalIndex, encoder: Encoder, documents: dict[str, dict[str, Any]]):
        self.flavor, self.index = flavor, index
        self.documents = documents
        texts = [str(document.get("contents") or document.get("text")) for document in documents.values()]
        self.vectors = encoder.encode_passages(texts)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        assert request.method == "POST"
        assert request.query.get("allow_partial_search_results") == "false"
        if request.path != f"/{INDEX}/_search":
            return error(404, "index_not_found_exception", f"no such index [{request.path.split('/')[1]}]")
        if unknown := set(body) - KNOWN_KEYS:
            return error(400, "parsing_exception", f"unknown key for a VALUE in {sorted(unknown)}")
        try:
            ranked = self._ranked(body)
        except (KeyError, ValueError, TypeError) as problem:
            return error(400, "x_content_parse_exception", str(problem))
        return web.json_response(answer(ranked[: body["size"]], body["_source"], self.documents))

    def _ranked(self, body: dict[str, Any]) -> list[tuple[str, float]]:
        if "knn" in body:
            if self.flavor != "elasticsearch":
                raise ValueError("unknown key [knn]")
            knn = body["knn"]
            if not knn["k"] <= knn["num_candidates"] <= 10_000:
                raise ValueError("[num_candidates] cannot be less than [k] or more than 10000")
            return self._nearest(knn["field"], knn["query_vector"], knn["k"])
        ((kind, clause),) = body["query"].items()
        if kind == "knn":
            if self.flavor != "opensearch":
                raise ValueError("[knn] requires query_vector")
            ((field, spec),) = clause.items()
            return self._nearest(field, spec["vector"], spec["k"])
        assert (kind, clause["fields"]) == ("multi_match", ["contents", "title", "text"])
        found = self.index.search_batch([clause["query"]], body["size"])[0]
        return [(passage.id, passage.score or 0.0) for passage in found]

    def _nearest(self, field: str, vector: list[float], k: int) -> list[tuple[str, float]]:
        if field != "embedding":
            raise ValueError(f"field [{field}] does not exist in the mapping")
        # Both engines make a positive score of the cosine this way.
        scores = (1 + self.vectors @ np.array(vector, np.float32)) / 2
        ids = list(self.documents)
        return [(ids[row], float(scores[row])) for row in np.argsort(-scores, kind="stable")[:k]]


def answer(
    ranked: list[tuple[str, float]], included: list[str], documents: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """The body of a search that worked."""
    hits = [
        {
            "_index": INDEX,
            "_id": identifier,
            "_score": score,
            "_source": {name: value for name, value in documents[identifier].items() if name in included},
        }
        for identifier, score in ranked
    ]
    return {
        "took": 4,
        "timed_out": False,
        "_shards": {"total": 5, "successful": 5, "skipped": 0, "failed": 0},
        "hits": {
            "total": {"value": len(hits), "relation": "eq"},
            "max_score": hits[0]["_score"] if hits else None,
            "hits": hits,
        },
    }


def error(status: int, kind: str, reason: str, **headers: str) -> web.Response:
    """A failure, in the shape that both engines give it."""
    cause = {"type": kind, "reason": reason}
    return web.json_response(
        {"error": {"root_cause": [cause], **cause}, "status": status}, status=status, headers=headers
    )
