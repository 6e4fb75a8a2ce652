"""``RetrieveClient`` against servers that answer oddly, each on a real socket."""

import contextlib
import gzip
import json
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.providers.retrieve import RetrieveClient
from tests.retrieval.providers.conftest import Serve

ServeRaw = Callable[[bytes], AbstractAsyncContextManager[str]]


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = (f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def search(
    serve_raw: ServeRaw, answer: bytes, *, k: int = 3, deadline_s: float = 30, **options: Any
) -> SearchOutcome:
    async with serve_raw(answer) as url, contextlib.aclosing(RetrieveClient(url, **options)) as client:
        return await client.search("q", k, deadline_s)


async def passages(serve_raw: ServeRaw, *entries: Any) -> tuple[Passage, ...]:
    outcome = await search(serve_raw, response(json.dumps({"result": [entries]}).encode()))
    assert isinstance(outcome, Found), outcome
    return outcome.passages


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"document": {"id": "7", "contents": '"T"\na\nb'}, "score": 1.5}, Passage("7", '"T"', "a\nb", score=1.5)),
        ({"document": {"id": 7, "contents": "T\na"}, "score": 2}, Passage("7", "T", "a", score=2.0)),
        ({"document": {"contents": "T\na"}}, Passage("", "T", "a")),
        ({"id": "7", "contents": "T\na"}, Passage("7", "T", "a")),
        ({"document": '"T"\na', "score": 0.5}, Passage("", '"T"', "a", score=0.5)),
        ("T\na", Passage("", "T", "a")),
        ({"document": {"contents": "T\na", "url": "https://x.test/"}}, Passage("", "T", "a", url="https://x.test/")),
        ({"document": {"id": "7", "title": "T", "text": "a"}, "score": 1}, Passage("7", '"T"', "a", score=1.0)),
        ({"id": "7", "title": '"T"', "text": "a\nb", "extra": {}}, Passage("7", '"T"', "a\nb")),
        ({"_id": "7", "title": "", "text": "a"}, Passage("7", '""', "a")),
        ({"document": {"text": "a", "url": "https://x.test/"}}, Passage("", '""', "a", url="https://x.test/")),
        (
            {"document": {"content": "T\na", "metadata": {"url": "https://x.test/"}}},
            Passage("", "T", "a", "https://x.test/"),
        ),
        ({"contents": "T\na", "url": "javascript:x"}, Passage("", "T", "a")),
        ({"document": {"contents": "T"}, "score": None}, Passage("", "T", "")),
        ({"document": {"contents": "T"}, "score": "high"}, Passage("", "T", "")),
        ({"document": {"contents": "T"}, "score": float("nan")}, Passage("", "T", "")),
        ({"document": {"contents": "T"}, "score": 10**400}, Passage("", "T", "")),
        ({"document": {"id": "a\x00", "contents": "T\x00\n\ud800b"}}, Passage("a\ufffd", "T\ufffd", "\ufffdb")),
    ],
)
async def test_accepts_every_shape_of_an_entry(serve_raw: ServeRaw, entry: Any, expected: Passage) -> None:
    assert await passages(serve_raw, entry) == (expected,)


async def test_fewer_than_k_are_fine_and_more_are_cut(serve_raw: ServeRaw) -> None:
    assert await passages(serve_raw) == ()
    assert [p.title for p in await passages(serve_raw, "a", "b", "c", "d", "e")] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (response(b"<html>hello</html>", "200 OK", "content-type: text/html"), "bad_response"),
        (response(b""), "bad_response"),
        (response(b"\xff\xfe{"), "bad_response"),
        (response(b"[" * 100_000), "bad_response"),
        (response(b"[]"), "bad_response"),
        (response(b'{"result": null}'), "bad_response"),
        (response(b'{"result": []}'), "bad_response"),
        (response(b'{"result": [[], []]}'), "bad_response"),
        (response(b'{"result": ["text"]}'), "bad_response"),
        (response(b'{"result": [[null]]}'), "bad_response"),
        (response(b'{"result": [[{"document": {"id": "1"}}]]}'), "bad_response"),
        (response(b"not gzip", "200 OK", "content-encoding: gzip"), "bad_response"),
        (response(b"", "302 Found", "location: /elsewhere"), "bad_response"),
        (response(b"{}", "500 Internal Server Error"), "unavailable"),
        (response(b"", "503 Service Unavailable"), "unavailable"),
        (response(b"", "504 Gateway Timeout"), "timeout"),
        (response(b"", "429 Too Many Requests"), "rate_limited"),
        (response(b"", "422 Unprocessable Entity"), "rejected"),
        (response(b"{}")[:-1], "unavailable"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "unavailable"),
    ],
)
async def test_failures_are_typed(serve_raw: ServeRaw, answer: bytes, kind: str) -> None:
    outcome = await search(serve_raw, answer)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == kind
    assert outcome.message.startswith("the retriever at http://127.0.0.1:")


async def test_says_what_came_instead_of_json(serve_raw: ServeRaw) -> None:
    outcome = await search(serve_raw, response(b"<html>", "200 OK", "content-type: text/html"))
    assert isinstance(outcome, SearchFailed)
    assert "not JSON (text/html)" in outcome.message


@pytest.mark.parametrize("compress", [False, True])
async def test_a_body_over_the_cap_is_refused(serve_raw: ServeRaw, compress: bool) -> None:
    body = json.dumps({"result": [["x" * 100_000]]}).encode()
    answer = response(gzip.compress(body), "200 OK", "content-encoding: gzip") if compress else response(body)
    assert isinstance(await search(serve_raw, answer), Found)
    outcome = await search(serve_raw, answer, max_body_bytes=50_000)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "bad_response"
    assert "50000 bytes" in outcome.message


@pytest.mark.parametrize("options", [{"deadline_s": 0.05}, {"timeout_s": 0.05}])
async def test_a_silent_server_is_a_timeout(serve_raw: ServeRaw, options: dict[str, Any]) -> None:
    outcome = await search(serve_raw, b"", **options)
    assert outcome == SearchFailed("timeout", getattr(outcome, "message", ""))
    assert "within 0.05 s" in getattr(outcome, "message", "")


async def test_a_refused_connection_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with contextlib.aclosing(
        RetrieveClient(f"http://user:secret@127.0.0.1:{port}/retrieve?key=secret")
    ) as client:
        outcome = await client.search("q", 3, 30)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"
    assert "secret" not in outcome.message


async def test_sends_upstreams_request_and_cleans_the_query() -> None:
    sent: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, json={"result": [[]]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = RetrieveClient("http://retriever.test/retrieve", client=http)
        assert await client.search("who\x00 \ud800?", 5, 30) == Found(())
        await client.aclose()
        assert not http.is_closed
    assert sent == [{"queries": ["who\ufffd \ufffd?"], "topk": 5, "return_scores": True}]
    outcome = await client.search("q", 3, 30)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"


async def test_a_urls_query_and_credentials_and_a_padded_key_are_sent() -> None:
    sent: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, json={"result": [[]]})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        base = "retriever.test/a/retrieve?corpus=a%20b&flag"
        await RetrieveClient(f"http://{base}", client=http, api_key="k3y\n").search("q", 3, 30)
        await RetrieveClient(f"http://:pw@{base}", client=http).search("q", 3, 30)
    assert [str(request.url) for request in sent] == [f"http://{base}"] * 2
    assert [request.headers["authorization"] for request in sent] == ["Bearer k3y", "Basic OnB3"]


@pytest.mark.parametrize("key", ["  ", "schlüssel", "line\nbreak"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_told(key: str) -> None:
    with pytest.raises(ConfigurationError, match="key") as refused:
        RetrieveClient("http://retriever.test/retrieve", api_key=key)
    assert key not in str(refused.value)


@pytest.mark.parametrize("url", ["", "retriever", "ftp://h/retrieve", "http:///retrieve", "http://h", "http://h:x/r"])
def test_a_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="URL"):
        RetrieveClient(url)


@pytest.mark.parametrize("path", ["/retrieve", "/retrieve/"])
@pytest.mark.parametrize("served", ["/retrieve", "/retrieve/"])
async def test_a_last_slash_more_or_less_does_no_harm(serve: Serve, path: str, served: str) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        if request.path != served:
            return web.Response(status=307, headers={"location": f"http://{request.host}{served}"})
        return web.json_response({"result": [["T\na"]]})

    async with serve(handler) as url, contextlib.aclosing(RetrieveClient(url + path)) as client:
        for _ in range(2):
            assert isinstance(await client.search("q", 1, 30), Found)
    assert len(asked) == (2 if path == served else 3), "the other spelling is remembered"


@pytest.mark.parametrize("location", ["http://127.0.0.1:1/retrieve/", "/elsewhere", "https://{host}/retrieve/", None])
async def test_no_other_redirect_is_followed(serve: Serve, location: str | None) -> None:
    asked: list[str] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        asked.append(request.path)
        headers = {"location": location.replace("{host}", request.host)} if location is not None else {}
        return web.Response(status=307, headers=headers)

    async with serve(handler) as url, contextlib.aclosing(RetrieveClient(f"{url}/retrieve")) as client:
        outcome = await client.search("q", 1, 30)
    assert isinstance(outcome, SearchFailed)
    assert "a redirect, which is not followed" in outcome.message
    assert asked == ["/retrieve"]
