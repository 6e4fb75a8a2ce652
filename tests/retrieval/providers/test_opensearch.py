import asyncio
import base64
import gzip
import json
from typing import Any

import httpx
import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.retrieval.index.encoder import HuggingFaceEncoder
from searchr1.retrieval.providers.opensearch import Flavor, Mode, OpenSearchRetriever
from tests.retrieval.providers.conftest import Serve
from tests.retrieval.providers.search_engine import INDEX, SearchEngine, answer, error

Document = dict[str, Any]


@pytest.fixture
def documents(contents: dict[str, str]) -> dict[str, Document]:
    found: dict[str, Document] = {key: {"contents": text, "embedding": [0.5]} for key, text in contents.items()}
    title, text = contents["timbuktu"].split("\n")
    found["timbuktu"] = {"title": title.strip('"'), "text": text, "url": "https://example.org/t", "embedding": [0.5]}
    return found


async def ask(url: str, query: str = "Mali", k: int = 3, deadline_s: float = 30, **options: Any) -> SearchOutcome:
    retriever = OpenSearchRetriever(url, options.pop("index", INDEX), **options)
    try:
        return await retriever.search(query, k, deadline_s)
    finally:
        await retriever.aclose()


async def ask_fixed(serve: Serve, response: web.Response | bytes, **options: Any) -> SearchOutcome:
    """Ask an engine that gives everyone the same answer."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(response, bytes):
            return web.Response(body=response, content_type="application/json")
        return response

    async with serve(handle) as url:
        return await ask(url, **options)


def failure(outcome: SearchOutcome) -> SearchFailed:
    assert isinstance(outcome, SearchFailed), outcome
    assert outcome.provider == "opensearch"
    return outcome


def passages(outcome: SearchOutcome) -> tuple[Passage, ...]:
    assert isinstance(outcome, Found), outcome
    assert outcome.provider in ("opensearch", "elasticsearch")
    return outcome.passages


@pytest.mark.parametrize("flavor", ["opensearch", "elasticsearch"])
@pytest.mark.parametrize("mode", ["bm25", "knn"])
async def test_finds_the_best_passage_first(
    serve: Serve,
    index: LocalIndex,
    encoder: HuggingFaceEncoder,
    documents: dict[str, Document],
    flavor: Flavor,
    mode: Mode,
) -> None:
    engine = SearchEngine(flavor, index, encoder, documents)
    options: dict[str, Any] = {"flavor": flavor, "mode": mode}
    if mode == "knn":
        options |= {"encoder": encoder, "vector_field": "embedding"}
    async with serve(engine) as url:
        (best,) = passages(await ask(url, "largest city", 1, **options))
        three = passages(await ask(url, "the edge of the Sahara", 3, **options))
    assert (best.id, best.title) == ("bamako", '"Bamako"')
    assert best.text == "Bamako is the capital of Mali and its largest city."
    scores = [passage.score or 0.0 for passage in three]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0
    assert three[0] == Passage(
        "timbuktu",
        '"Timbuktu"',
        "Timbuktu is a city in Mali, on the edge of the Sahara.",
        "https://example.org/t",
        three[0].score,
    )
    assert all("embedding" not in request["_source"] for request in engine.requests)
    assert [request["timeout"] for request in engine.requests] == ["30000ms"] * 2


async def test_many_searches_share_one_client(
    serve: Serve, index: LocalIndex, encoder: HuggingFaceEncoder, documents: dict[str, Document]
) -> None:
    engine = SearchEngine("opensearch", index, encoder, documents)
    async with serve(engine) as url, httpx.AsyncClient() as client:
        retriever = OpenSearchRetriever(url, INDEX, client=client)
        names = ["Mali", "Timbuktu", "Córdoba", "rivers"] * 5
        outcomes = await asyncio.gather(*(retriever.search(name, 1 + i % 2, 30) for i, name in enumerate(names)))
        await retriever.aclose()
        assert not client.is_closed
    assert all(name in passages(found)[0].contents for name, found in zip(names, outcomes, strict=True))


@pytest.mark.parametrize("query", ["", "   "])
@pytest.mark.parametrize("k", [0, -1, 3])
async def test_nothing_asked_is_nothing_sent(query: str, k: int) -> None:
    assert passages(await ask("http://127.0.0.1:9", query, k)) == ()
    assert passages(await ask("http://127.0.0.1:9", "Mali", min(k, 0))) == ()


@pytest.mark.parametrize("query", ["zzyzx", "\x00", "\ud800"])
async def test_a_query_without_matches_finds_nothing(
    serve: Serve, index: LocalIndex, encoder: HuggingFaceEncoder, documents: dict[str, Document], query: str
) -> None:
    async with serve(SearchEngine("opensearch", index, encoder, documents)) as url:
        assert passages(await ask(url, query)) == ()


async def test_an_index_that_does_not_exist(
    serve: Serve, index: LocalIndex, encoder: HuggingFaceEncoder, documents: dict[str, Document]
) -> None:
    async with serve(SearchEngine("opensearch", index, encoder, documents)) as url:
        failed = failure(await ask(url, index="lost"))
    assert failed.kind == "rejected"
    assert failed.message.endswith("answered HTTP 404 (index_not_found_exception)")


@pytest.mark.parametrize(
    ("response", "kind", "said"),
    [
        (error(429, "es_rejected_execution_exception", "queue full"), "rate_limited", "es_rejected_execution"),
        (error(503, "rejected_execution_exception", "queue full"), "rate_limited", "rejected_execution"),
        (error(503, "circuit_breaking_exception", "Data too large"), "rate_limited", "circuit_breaking"),
        (error(503, "no_shard_available_action_exception", "none"), "unavailable", "no_shard_available"),
        (error(504, "search_timeout_exception", "Time exceeded"), "timeout", "search_timeout"),
        (error(400, "parsing_exception", "unknown key"), "rejected", "parsing_exception"),
        (error(401, "security_exception", "missing credentials"), "rejected", "security_exception"),
        (error(403, "security_exception", "no permissions for [indices:data/read/search]"), "rejected", "HTTP 403"),
        (web.Response(status=401, text="Unauthorized"), "rejected", "HTTP 401"),
        (web.Response(status=502, text="<html>Bad gateway</html>"), "unavailable", "HTTP 502"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "bad_response", "HTTP 302"),
        (
            web.json_response({"error": "alias [x] has more than one index", "status": 400}, status=400),
            "rejected",
            "400",
        ),
        (web.json_response({"error": {"root_cause": [None, 3], "type": 5}}, status=500), "unavailable", "500"),
    ],
)
async def test_a_refusal_is_typed(serve: Serve, response: web.Response, kind: str, said: str) -> None:
    failed = failure(await ask_fixed(serve, response))
    assert failed.kind == kind
    assert said in failed.message


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)])
async def test_a_wait_is_passed_on(serve: Serve, header: str, seconds: float | None) -> None:
    response = error(429, "es_rejected_execution_exception", "queue full", **{"Retry-After": header})
    assert failure(await ask_fixed(serve, response)).retry_after_s == seconds


def whole(**changes: Any) -> bytes:
    body = answer([("a", 2.0)], ["contents"], {"a": {"contents": "T\ntext"}})
    return json.dumps(body | changes).encode()


def of_hit(hit: Any) -> bytes:
    return whole(hits={"hits": [hit]})


SOME_SHARDS = {
    "total": 5,
    "successful": 3,
    "failed": 2,
    "failures": [{"shard": 0, "reason": {"type": "es_rejected_execution_exception"}}, None],
}


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (whole(timed_out=True), "timeout", "in time"),
        (whole(_shards=SOME_SHARDS), "unavailable", "2 of 5 shards (es_rejected_execution_exception)"),
        (whole(_shards={"failed": 1}), "unavailable", "1 of ? shards"),
        (b"<html>Sign in</html>", "bad_response", "not a JSON object"),
        (b"[]", "bad_response", "not a JSON object"),
        (b"", "bad_response", "not a JSON object"),
        (b"[" * 100_000, "bad_response", "not a JSON object"),
        (b'{"hits": {"hi', "bad_response", "not a JSON object"),
        (whole(hits=None), "bad_response", '"hits"'),
        (whole(hits={"hits": {}}), "bad_response", '"hits"'),
        (of_hit({"_id": "a"}), "bad_response", "_source"),
        (of_hit(None), "bad_response", "_source"),
        (of_hit({"_source": {"title": "T"}}), "bad_response", "contents"),
        (of_hit({"_source": {"text": ["list"]}}), "bad_response", "contents"),
    ],
)
async def test_an_answer_that_is_no_whole_search_is_a_failure(serve: Serve, body: bytes, kind: str, said: str) -> None:
    failed = failure(await ask_fixed(serve, body))
    assert (failed.kind, said in failed.message) == (kind, True), failed


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"contents": '"T"\nline\nline'}, ('"T"', "line\nline", None)),
        ({"contents": "C\nc", "title": "T", "text": "t"}, ("C", "c", None)),
        ({"title": "T", "text": "t"}, ('"T"', "t", None)),
        ({"title": '"T"', "text": "t"}, ('"T"', "t", None)),
        ({"title": " A\nB\t", "text": "\x00t\ud800"}, ('"A B"', "\ufffdt\ufffd", None)),
        ({"title": None, "text": "t"}, ('""', "t", None)),
        ({"text": "t", "url": "http://example.org/a?b"}, ('""', "t", "http://example.org/a?b")),
        ({"text": "t", "url": "javascript:alert(1)"}, ('""', "t", None)),
        ({"text": "t", "url": "https://user:secret@example.org/"}, ('""', "t", None)),
        ({"text": "t", "url": "https://host:port"}, ('""', "t", None)),
        ({"text": "t", "url": 5}, ('""', "t", None)),
    ],
)
async def test_documents_of_every_shape(serve: Serve, source: Document, expected: tuple[str, str, str | None]) -> None:
    (passage,) = passages(await ask_fixed(serve, of_hit({"_id": "1", "_score": 1.5, "_source": source})))
    assert (passage.title, passage.text, passage.url) == expected
    assert (passage.id, passage.score) == ("1", 1.5)


@pytest.mark.parametrize("score", [None, "high", True, 10**400])
async def test_a_score_that_is_none(serve: Serve, score: Any) -> None:
    (passage,) = passages(await ask_fixed(serve, of_hit({"_id": 7, "_score": score, "_source": {"contents": "T\nt"}})))
    assert (passage.id, passage.score) == ("7", None)


async def test_more_hits_than_asked_for_are_cut(serve: Serve) -> None:
    hits = [{"_id": str(i), "_score": 1.0, "_source": {"contents": "T\nt"}} for i in range(9)]
    assert [p.id for p in passages(await ask_fixed(serve, whole(hits={"hits": hits}), k=2))] == ["0", "1"]


async def test_a_body_without_end_is_not_read(serve: Serve) -> None:
    assert "more than 1000 bytes" in failure(await ask_fixed(serve, b" " * 5000, max_body_bytes=1000)).message
    packed = web.Response(body=gzip.compress(b" " * 5_000_000), headers={"Content-Encoding": "gzip"})
    assert "more than 1000000 bytes" in failure(await ask_fixed(serve, packed, max_body_bytes=1_000_000)).message


async def test_a_broken_encoding_is_a_bad_response(serve: Serve) -> None:
    response = web.Response(body=b"not gzip", headers={"Content-Encoding": "gzip"})
    assert failure(await ask_fixed(serve, response)).kind == "bad_response"


async def test_half_a_body_is_unavailable(serve: Serve) -> None:
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"hits"')
        assert request.transport is not None
        request.transport.close()
        return response

    async with serve(handle) as url:
        assert failure(await ask(url)).kind == "unavailable"


async def test_a_slow_drip_ends_at_the_deadline(serve: Serve) -> None:
    ended = asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serve(handle) as url:
        failed = failure(await ask(url, deadline_s=0.2))
        await asyncio.wait_for(ended.wait(), 30)
    assert failed.kind == "timeout"
    assert failed.message.endswith("did not answer within 0.2 s")


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_passed_deadline_is_a_timeout(deadline_s: float) -> None:
    assert failure(await ask("http://127.0.0.1:9", deadline_s=deadline_s)).kind == "timeout"


async def test_nobody_there_is_unavailable() -> None:
    failed = failure(await ask("http://127.0.0.1:9", api_key="user:hunter2"))
    assert failed.kind == "unavailable"
    assert "hunter2" not in failed.message


async def test_a_closed_retriever_is_unavailable() -> None:
    retriever = OpenSearchRetriever("http://127.0.0.1:9", INDEX)
    await retriever.aclose()
    assert failure(await retriever.search("Mali", 1, 30)).kind == "unavailable"


async def test_cancellation_gets_through_and_ends_the_request(serve: Serve) -> None:
    came, ended = asyncio.Event(), asyncio.Event()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        came.set()
        try:
            while True:
                await response.write(b" ")
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    async with serve(handle) as url:
        search = asyncio.create_task(ask(url))
        await asyncio.wait_for(came.wait(), 30)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        await asyncio.wait_for(ended.wait(), 30)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_credentials_are_sent_and_never_told(
    serve: Serve,
    index: LocalIndex,
    encoder: HuggingFaceEncoder,
    documents: dict[str, Document],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(0)
    engine = SearchEngine("opensearch", index, encoder, documents)
    async with serve(engine) as url:
        with_user = url.replace("http://", "http://ann:p%40ss@")
        messages = [
            failure(await ask(url, index="x", api_key="s3cret")).message,
            failure(await ask(with_user, index="x")).message,
            failure(await ask(url, index="x", api_key="ann:p@ss")).message,
        ]
    sent = [headers.get("Authorization") for headers in engine.headers]
    assert sent == ["ApiKey s3cret", *[basic("ann", "p@ss")] * 2]
    told = " ".join(messages) + caplog.text
    assert not any(secret in told for secret in ("s3cret", "p@ss", "p%40ss", sent[1] or "-"))


async def test_a_path_and_odd_index_names_are_kept(serve: Serve) -> None:
    paths: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        paths.append(request.raw_path.partition("?")[0])
        return web.Response(body=whole(), content_type="application/json")

    async with serve(handle) as url:
        await ask(f"{url}/proxy/", index="/a,b-*/")
        await ask(url, index="../_all?x")
    assert paths == ["/proxy/a,b-*/_search", "/..%2F_all%3Fx/_search"]


@pytest.mark.parametrize(
    ("url", "index", "options"),
    [
        ("ftp://host", "x", {}),
        ("http://", "x", {}),
        ("http://host:port", "x", {}),
        ("http://host", "", {}),
        ("http://host", "/", {}),
        ("http://host", "x", {"mode": "knn"}),
        ("http://host", "x", {"api_key": "line\nbreak"}),
        ("http://host", "x", {"api_key": "schlüssel"}),
    ],
)
def test_a_setup_that_cannot_work_is_refused(url: str, index: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        OpenSearchRetriever(url, index, **options)
    assert not any(secret in str(refused.value) for secret in ("line", "schl"))
