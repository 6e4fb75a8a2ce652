"""The ``/retrieve`` server: both response forms, its limits, and how failed searches show."""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from searchr1.errors import ConfigurationError, CorpusError
from searchr1.loop.types import Passage
from searchr1.printable import STEERING_IN_JSON
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.config import SearchConfig
from searchr1.retrieval.fake import FakeRetriever
from searchr1.retrieval.providers.retrieve import RetrieveClient
from searchr1.retrieval.server import RetrieveLimits, create_retrieve_app, serve
from searchr1.retrieval.server_access import Access
from searchr1.settings import Settings
from tests.http_server.conftest import connected, running

PASSAGES = [Passage(str(i), f'"T{i}"', f"text {i}", score=9.0 - i) for i in range(8)]
LIMITS = RetrieveLimits(max_queries=4, max_query_chars=20, max_top_k=5, max_body_bytes=1000)


def client_of(retriever: FakeRetriever) -> httpx.AsyncClient:
    app = create_retrieve_app(retriever, limits=LIMITS)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    fake = FakeRetriever(
        {
            "q": PASSAGES,
            "web": [Passage("w", "T", "x", url="https://x.test/")],
            "bad\ufffd\ufffd": [Passage("\ud800", "a\x00", "b", score=1.0)],
        }
    )
    async with client_of(fake) as client:
        yield client


async def test_answers_with_scores_as_upstream_does(client: httpx.AsyncClient) -> None:
    answer = await client.post("/retrieve", json={"queries": ["q", "none"], "topk": 1, "return_scores": True})
    assert answer.status_code == 200
    assert answer.json() == {"result": [[{"document": {"id": "0", "contents": '"T0"\ntext 0'}, "score": 9.0}], []]}


async def test_answers_without_scores_as_upstream_does(client: httpx.AsyncClient) -> None:
    answer = await client.post("/retrieve", json={"queries": ["q"], "topk": 1})
    assert answer.json() == {"result": [[{"id": "0", "contents": '"T0"\ntext 0'}]]}


@pytest.mark.parametrize("outcome", ["found", "failed"])
async def test_its_json_holds_nothing_that_steers_a_terminal_and_its_values_do(outcome: str) -> None:
    hostile = "a\u202egpj\x9b31m\x7f\u2028é"
    found = Found((Passage("w", hostile, hostile, url=f"https://x.test/{hostile}", score=1.0),))
    retriever = FakeRetriever({"q": found if outcome == "found" else SearchFailed("unavailable", hostile)})
    async with client_of(retriever) as client:
        answer = await client.post("/retrieve", json={"queries": ["q"], "return_scores": True})
    assert STEERING_IN_JSON.search(answer.text) is None
    assert hostile in json.dumps(answer.json(), ensure_ascii=False)


async def test_a_passage_without_score_has_none(client: httpx.AsyncClient) -> None:
    answer = await client.post("/retrieve", json={"queries": ["web"], "return_scores": True})
    assert answer.json() == {"result": [[{"document": {"id": "w", "contents": "T\nx", "url": "https://x.test/"}}]]}


@pytest.mark.parametrize("extra", [{}, {"topk": None}])
async def test_three_passages_by_default(client: httpx.AsyncClient, extra: dict[str, Any]) -> None:
    answer = await client.post("/retrieve", json={"queries": ["q"], **extra})
    assert len(answer.json()["result"][0]) == 3


async def test_text_that_cannot_be_encoded_is_replaced(client: httpx.AsyncClient) -> None:
    answer = await client.post("/retrieve", content=b'{"queries": ["bad\\u0000\\ud800"]}')
    assert answer.json() == {"result": [[{"id": "\ufffd", "contents": "a\ufffd\nb"}]]}


async def test_no_queries_have_no_results(client: httpx.AsyncClient) -> None:
    assert (await client.post("/retrieve", json={"queries": []})).json() == {"result": []}


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[" * 999, 400, "not JSON"),
        (b"7", 422, "body"),
        (b"{}", 422, "queries: Field required"),
        (b'{"queries": "q"}', 422, "queries: "),
        (b'{"queries": ["q", 7]}', 422, "queries.1: "),
        (b'{"queries": ["q"], "topk": 0}', 422, "topk: "),
        (b'{"queries": ["q"], "topk": 6}', 422, "topk: at most 5"),
        (b'{"queries": ["q"], "topk": 1e400}', 422, "topk: "),
        (b'{"queries": ["q"], "topk": true}', 422, "topk: "),
        (b'{"queries": ["q"], "return_scores": "yes"}', 422, "return_scores: "),
        (b'{"queries": ["1", "2", "3", "4", "5"]}', 422, "queries: 5 of them, at most 4"),
        (b'{"queries": ["' + b"x" * 21 + b'"]}', 422, "queries: each may have at most 20"),
        (b" " * 1001, 413, "over 1000 bytes"),
    ],
)
async def test_bad_input_is_refused_with_a_reason(
    client: httpx.AsyncClient, body: bytes, status: int, detail: str
) -> None:
    answer = await client.post("/retrieve", content=body)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("timeout", 504),
        ("unavailable", 503),
        ("rate_limited", 429),
        ("bad_response", 502),
        ("rejected", 502),
        ("budget", 429),
    ],
)
async def test_a_failed_search_fails_the_request(kind: Any, status: int) -> None:
    async with client_of(
        FakeRetriever({"q": PASSAGES, "f": SearchFailed(kind, "the provider\ud800 said no")})
    ) as client:
        answer = await client.post("/retrieve", json={"queries": ["q", "f"]})
    assert answer.status_code == status
    assert answer.json() == {"detail": "the provider\ufffd said no", "kind": kind}


async def test_healthz(client: httpx.AsyncClient) -> None:
    answer = await client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_the_schema_describes_the_body(client: httpx.AsyncClient) -> None:
    body = (await client.get("/openapi.json")).json()["paths"]["/retrieve"]["post"]["requestBody"]
    assert set(body["content"]["application/json"]["schema"]["properties"]) == {"queries", "topk", "return_scores"}


def test_serve_names_what_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(CorpusError):
        serve(SearchConfig(f"index:{tmp_path}"), "127.0.0.1", 0)
    with pytest.raises(ConfigurationError, match="no retriever is called"):
        serve(SearchConfig("nothing"), "127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot listen on"):
        serve(SearchConfig(f"index:{tmp_path}"), "127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="cannot listen on"):
        serve(SearchConfig(f"index:{tmp_path}"), "127.0.0.1", 70000)


@pytest.mark.process
def test_serve_answers_until_interrupted(index_path: Path) -> None:
    code = (
        "from searchr1.retrieval.config import SearchConfig\nfrom searchr1.retrieval.server import serve\n"
        f"serve(SearchConfig({f'index:{index_path}'!r}), '127.0.0.1', 0)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = ""
            while (ready := re.search(r"http://127.0.0.1:\d+/retrieve", log)) is None:
                line = process.stderr.readline()
                assert line, log
                log += line
            answer = httpx.post(ready[0], json={"queries": ["Timbuktu"], "topk": 1}, timeout=30)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert answer.json()["result"][0][0]["id"] == "timbuktu"
    assert "asks for no key: it is open to this machine." in log
    assert all(re.match(r"\d{4}-\d\d-\d\d \S+ [A-Z]+ searchr1\.", line) for line in log.splitlines()), log


def test_who_may_ask_is_known_for_the_log() -> None:
    assert Access("127.0.0.1").reach == "this machine"
    assert Access("localhost", is_open=True).reach == "this machine"
    assert Access("0.0.0.0", is_open=True).reach == "everyone who reaches 0.0.0.0"
    assert Access("0.0.0.0", keys=["key"], is_open=True).reach is None


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        ("Bearer ", 401),
        ("Bearer other", 401),
        ("Bearer key1", 401),
        ("Basic key-1", 401),
        ("key-1", 401),
        ("Bearer key-1", 200),
        ("bearer  key-2 ", 200),
    ],
)
async def test_a_server_with_keys_asks_for_one_before_it_reads_the_body(authorization: str | None, status: int) -> None:
    app = create_retrieve_app(FakeRetriever({}), limits=LIMITS, access=Access("0.0.0.0", keys=["key-1", "key-2"]))
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        for content in (b'{"queries": []}', *([b"{", b" " * 2000] if status == 401 else [])):
            assert (await client.post("/retrieve", content=content, headers=headers)).status_code == status
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9", "a.localhost"])
async def test_a_server_without_keys_answers_to_its_own_machine(host: str) -> None:
    app = create_retrieve_app(FakeRetriever({}), access=Access(host))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8001") as client:
        for name, status in {
            "localhost": 200,
            "127.0.0.1:8001": 200,
            "[::1]:8001": 200,
            "evil.example": 421,
            "evil.example:8001": 421,
            "127.0.0.1.evil.example": 421,
            "localhost.evil.example": 421,
            "10.0.0.1": 421,
            "127.0.0.1:80@evil.example": 421,
            "localhost:80:80": 421,
            "": 421,
        }.items():
            answer = await client.post("/retrieve", json={"queries": []}, headers={"host": name})
            assert answer.status_code == status, name


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "example.org", "[::]"])
def test_a_server_that_others_reach_needs_keys_or_to_be_told(host: str) -> None:
    with pytest.raises(ConfigurationError, match="SEARCHR1_RETRIEVER_API_KEYS"):
        serve(SearchConfig("nothing"), host, 0)
    Access(host, keys=["key"])
    Access(host, is_open=True)


@pytest.mark.parametrize("given", ["", ",", " , ,"])
def test_keys_that_are_set_but_empty_are_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCHR1_RETRIEVER_API_KEYS", given)
    with pytest.raises((ConfigurationError, ValueError)):
        Settings.load(model="none", retriever="http://127.0.0.1:1/retrieve")


async def test_a_gateway_sends_the_key_that_the_server_asks_for() -> None:
    app = create_retrieve_app(FakeRetriever({"q": PASSAGES}), access=Access("0.0.0.0", keys=["key"]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
        url = "http://retriever:8001/retrieve"
        found = await RetrieveClient(url, client=client, api_key="key").search("q", 2, 5)
        refused = await RetrieveClient(url, client=client, api_key="other").search("q", 2, 5)
    assert isinstance(found, Found)
    assert [passage.id for passage in found.passages] == ["0", "1"]
    assert isinstance(refused, SearchFailed)
    assert refused.status == 401


@pytest.mark.parametrize(
    ("num_queries", "topk", "chars", "detail"),
    [
        (4096, 100, 1, "queries times topk: 409600 passages, at most 20480"),
        (4096, 6, 1, "queries times topk"),
        (300, 1, 8000, "together"),
    ],
)
async def test_what_a_request_may_cost_is_bounded_by_default(
    num_queries: int, topk: int, chars: int, detail: str
) -> None:
    app = create_retrieve_app(FakeRetriever({}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/retrieve", json={"queries": ["q" * chars] * num_queries, "topk": topk})
        assert answer.status_code == 422
        assert detail in answer.json()["detail"]
        whole_step = await client.post("/retrieve", json={"queries": ["q"] * 4096, "topk": 5})
        assert len(whole_step.json()["result"]) == 4096


async def test_an_answer_that_grows_too_large_is_given_up_on_the_way() -> None:
    fake = FakeRetriever({"q": [Passage("1", "T", "x" * 1000)]})
    app = create_retrieve_app(fake, limits=RetrieveLimits(max_answer_bytes=100_000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/retrieve", json={"queries": ["q"] * 4000, "topk": 1})
        assert (answer.status_code, "larger than 100000" in answer.json()["detail"]) == (422, True)
        assert (await client.post("/retrieve", json={"queries": ["q"] * 50})).status_code == 200
    assert len(fake.queries) < 500


async def test_other_requests_have_their_turn_while_many_queries_are_searched() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    app = create_retrieve_app(FakeRetriever({"q": PASSAGES}))
    counting = asyncio.ensure_future(count())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/retrieve", json={"queries": ["q"] * 4096})).status_code == 200
    counting.cancel()
    assert turns > 4096 / 64


async def test_head_slashes_and_names_of_health(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/health", "/healthz/", "//health"):
        assert (await client.get(f"http://test{path}")).json() == {"status": "ok"}
        head = await client.head(f"http://test{path}")
        assert (head.status_code, head.content) == (200, b"")
    assert (await client.post("http://test/retrieve/", json={"queries": []})).json() == {"result": []}


async def test_what_java_asks_is_answered() -> None:
    body = b'{"queries": ["q"], "topk": 1}'
    asked = b"POST /retrieve HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n"
    asked += b"Upgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with running(create_retrieve_app(FakeRetriever({"q": PASSAGES}))) as port, connected(port) as peer:
        await peer.send(asked, body)
        answer = await peer.answer()
    assert answer.json() == {"result": [[{"id": "0", "contents": '"T0"\ntext 0'}]]}
