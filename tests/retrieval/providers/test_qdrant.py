"""The server here is ``qdrant-client``'s own engine and data types behind HTTP, checked by its own client."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.index.encoder import HuggingFaceEncoder
from searchr1.retrieval.providers.qdrant import QdrantRetriever
from tests.retrieval.providers.conftest import Serve

KEY = "s3cret"


class Qdrant:
    """Collections ``plain`` and ``named`` (a vector called ``text``), open to whoever has the key."""

    def __init__(self, encoder: HuggingFaceEncoder, contents: dict[str, str]) -> None:
        self.engine = QdrantClient(":memory:")
        shape = models.VectorParams(size=encoder.info.dimension, distance=models.Distance.COSINE)
        vectors = encoder.encode_passages(list(contents.values())).tolist()
        payloads = [{"id": key, "contents": text, "secret": "not asked for"} for key, text in contents.items()]
        for name, config in (("plain", shape), ("named", {"text": shape})):
            self.engine.create_collection(name, vectors_config=config)
            stored = vectors if name == "plain" else [{"text": vector} for vector in vectors]
            points = [models.PointStruct(id=i, vector=stored[i], payload=payloads[i]) for i in range(len(payloads))]
            self.engine.upsert(name, points)
        self.queries: list[dict[str, str]] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get("api-key") != KEY:
            return web.Response(status=401, text="Must provide an API key or an Authorization bearer token")
        _, collections, name, *rest = request.path.split("/")
        assert (request.method, collections, rest) == ("POST", "collections", ["points", "query"])
        self.queries.append(dict(request.query))
        if not self.engine.collection_exists(name):
            return refusal(404, f"Not found: Collection `{name}` doesn't exist!")
        asked = models.QueryRequest.model_validate_json(await request.read())
        fields = {"query", "using", "limit", "with_payload"}
        try:
            found = self.engine.query_points(name, **{key: getattr(asked, key) for key in fields})
        except ValueError as error:
            return refusal(400, f"Wrong input: {error}")
        body = {"result": found.model_dump(mode="json", exclude_none=True), "status": "ok", "time": 0.001}
        return web.json_response(body)


def refusal(status: int, reason: str, **headers: str) -> web.Response:
    return web.json_response({"status": {"error": reason}, "time": 0.0}, status=status, headers=headers)


@pytest.fixture
def qdrant(encoder: HuggingFaceEncoder, contents: dict[str, str]) -> Qdrant:
    return Qdrant(encoder, contents)


async def ask(url: str, encoder: HuggingFaceEncoder, query: str = "Mali", k: int = 3, **options: Any) -> SearchOutcome:
    collection, deadline_s = options.pop("collection", "plain"), options.pop("deadline_s", 30)
    retriever = QdrantRetriever(url, collection, encoder, **{"api_key": KEY} | options)
    try:
        return await retriever.search(query, k, deadline_s)
    finally:
        await retriever.aclose()


async def ask_fixed(
    serve: Serve, response: web.Response | bytes, encoder: HuggingFaceEncoder, **options: Any
) -> SearchOutcome:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=response) if isinstance(response, bytes) else response

    async with serve(handle) as url:
        return await ask(url, encoder, **options)


def passages(outcome: SearchOutcome) -> tuple[Passage, ...]:
    assert isinstance(outcome, Found), outcome
    assert outcome.provider == "qdrant"
    return outcome.passages


def failure(outcome: SearchOutcome) -> SearchFailed:
    assert isinstance(outcome, SearchFailed), outcome
    assert outcome.provider == "qdrant"
    assert KEY not in outcome.message
    return outcome


async def test_the_server_speaks_what_the_official_client_speaks(
    serve: Serve, qdrant: Qdrant, encoder: HuggingFaceEncoder
) -> None:
    vector = encoder.encode_queries(["Timbuktu"])[0].tolist()
    async with serve(qdrant) as url:
        with pytest.warns(UserWarning, match="insecure connection"):
            client = AsyncQdrantClient(url=url, api_key=KEY, check_compatibility=False, trust_env=False)
        found = await client.query_points("plain", query=vector, limit=1)
        await client.close()
    assert [point.payload and point.payload["id"] for point in found.points] == ["timbuktu"]


@pytest.mark.parametrize(("collection", "vector_name"), [("plain", None), ("named", "text")])
async def test_finds_the_nearest_passage_first(
    serve: Serve, qdrant: Qdrant, encoder: HuggingFaceEncoder, collection: str, vector_name: str | None
) -> None:
    async with serve(qdrant) as url:
        options: dict[str, Any] = {"collection": collection, "vector_name": vector_name}
        found = passages(await ask(url, encoder, "Timbuktu, on the edge of the Sahara", **options))
    best = found[0]
    assert (best.id, best.title) == ("timbuktu", '"Timbuktu"')
    assert best.text == "Timbuktu is a city in Mali, on the edge of the Sahara."
    scores = [passage.score or 0.0 for passage in found]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert qdrant.queries == [{"timeout": "30"}]


async def test_many_searches_keep_their_own_answers(serve: Serve, qdrant: Qdrant, encoder: HuggingFaceEncoder) -> None:
    names = ["landlocked country", "Timbuktu Sahara", "Córdoba Andalusia", "single line about rivers"] * 5
    async with serve(qdrant) as url:
        outcomes = await asyncio.gather(*(ask(url, encoder, name, 1 + i % 2) for i, name in enumerate(names)))
    assert [len(passages(outcome)) for outcome in outcomes] == [1, 2] * 10
    assert all(name.split()[-1] in passages(found)[0].contents for name, found in zip(names, outcomes, strict=True))


@pytest.mark.parametrize(("query", "k"), [("", 3), (" ", 3), ("Mali", 0), ("Mali", -1)])
async def test_nothing_asked_is_nothing_sent(encoder: HuggingFaceEncoder, query: str, k: int) -> None:
    assert passages(await ask("http://127.0.0.1:9", encoder, query, k)) == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"collection": "lost"}, "HTTP 404 (Not found: Collection `lost` doesn't exist!)"),
        ({"collection": "named"}, "HTTP 400 (Wrong input: "),
        ({"vector_name": "image"}, "HTTP 400 (Wrong input: "),
        ({"api_key": "wrong"}, "HTTP 401"),
        ({"api_key": None}, "HTTP 401"),
    ],
)
async def test_a_request_that_the_engine_refuses(
    serve: Serve, qdrant: Qdrant, encoder: HuggingFaceEncoder, options: dict[str, Any], said: str
) -> None:
    async with serve(qdrant) as url:
        failed = failure(await ask(url, encoder, **options))
    assert failed.kind == "rejected"
    assert said in failed.message


@pytest.mark.parametrize(
    ("response", "kind", "wait_s"),
    [
        (refusal(429, "Rate limiting exceeded: Read rate limit exceeded", **{"Retry-After": "3"}), "rate_limited", 3.0),
        (refusal(500, "Service internal error: 1 of 1 read operations failed"), "unavailable", None),
        (refusal(503, "Service unavailable"), "unavailable", None),
        (refusal(408, "Timeout error: Operation timed out after 1 seconds"), "timeout", None),
        (web.Response(status=500, body=b'{"status": "error"}'), "unavailable", None),
    ],
)
async def test_a_failure_is_typed(
    serve: Serve, encoder: HuggingFaceEncoder, response: web.Response, kind: str, wait_s: float | None
) -> None:
    failed = failure(await ask_fixed(serve, response, encoder))
    assert (failed.kind, failed.retry_after_s) == (kind, wait_s)


def of(points: Any) -> bytes:
    return json.dumps({"result": {"points": points}, "status": "ok"}).encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html>", "not a JSON object"),
        (b'{"result": {"poi', "not a JSON object"),
        (b'{"result": []}', '"points"'),
        (of(None), '"points"'),
        (of([None]), "payload"),
        (of([{"id": 1, "score": 1.0}]), "payload"),
        (of([{"id": 1, "payload": {"title": "T"}}]), "contents"),
        (b" " * 2000, "more than 1000 bytes"),
    ],
)
async def test_an_answer_of_another_shape(serve: Serve, encoder: HuggingFaceEncoder, body: bytes, said: str) -> None:
    failed = failure(await ask_fixed(serve, body, encoder, max_body_bytes=1000))
    assert (failed.kind, said in failed.message) == ("bad_response", True), failed


async def test_payloads_of_every_shape(serve: Serve, encoder: HuggingFaceEncoder) -> None:
    points = [
        {"id": 1, "score": 0.5, "payload": {"id": 77, "contents": "T\nt"}},
        {"id": "9e9d", "score": None, "payload": {"title": "T", "text": "t", "url": "https://example.org/"}},
        {"id": 3, "payload": {"text": "cut", "url": "file:///etc/passwd"}},
        {"id": 4, "payload": {"text": "more than was asked for"}},
    ]
    assert passages(await ask_fixed(serve, of(points), encoder)) == (
        Passage("77", "T", "t", None, 0.5),
        Passage("9e9d", '"T"', "t", "https://example.org/", None),
        Passage("3", '""', "cut", None, None),
    )


async def test_an_engine_that_is_slow_or_away(serve: Serve, encoder: HuggingFaceEncoder) -> None:
    async def never(request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with serve(never) as url:
        assert failure(await ask(url, encoder, deadline_s=0.2)).kind == "timeout"
    assert failure(await ask("http://127.0.0.1:9", encoder)).kind == "unavailable"
    assert failure(await ask("http://127.0.0.1:9", encoder, deadline_s=0.0)).kind == "timeout"


@pytest.mark.parametrize(
    ("url", "collection", "key"), [("host", "x", None), ("http://h", "", None), ("http://h", "x", "é")]
)
def test_a_setup_that_cannot_work_is_refused(
    encoder: HuggingFaceEncoder, url: str, collection: str, key: str | None
) -> None:
    with pytest.raises(ConfigurationError):
        QdrantRetriever(url, collection, encoder, api_key=key)
