"""HTTP as clients, proxies and probes speak it: the key before the body, bodies, methods, paths, line breaks."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from searchr1.gateway import json_body
from searchr1.gateway.app import create_app
from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found
from searchr1.settings import Settings
from tests.http_server.conftest import HOST, connected

from .conftest import ANSWER_TURN, MODEL, SEARCH_TURN, Stage, StageEngine, StageRetriever, eventually, running_stage

APP = create_app(Settings.model_validate({"model": MODEL, "retriever": "index:none"}))
JSON = {"content-type": "application/json"}


def routes(app: FastAPI, *prefixes: str) -> Iterator[tuple[APIRoute, str, str]]:
    """Every route below the prefixes, with a method and a path that it matches."""
    for route in app.routes:
        if isinstance(route, APIRoute) and route.path.startswith(prefixes):
            path = route.path.replace("{name:path}", MODEL)
            for name in ("run_id", "response_id", "conversation_id", "item_id"):
                path = path.replace(f"{{{name}}}", "x")
            for method in route.methods:
                yield route, method, path


KEYED = sorted({(method, path) for _, method, path in routes(APP, "/v1", "/admin")})
OPEN_GETS = sorted({path for _, method, path in routes(APP, "/") if method == "GET" and "/v1/r" not in path})


def test_every_route_of_the_api_checks_the_key_before_it_reads_the_body() -> None:
    found = [route for route, _, _ in routes(APP, "/v1", "/admin")]
    assert len(found) > 10
    assert [route.path for route in found if not (isinstance(route, GuardedRoute) and route.guards)] == []


@pytest.mark.parametrize(("method", "path"), KEYED)
async def test_without_a_key_a_body_is_not_waited_for(method: str, path: str) -> None:
    head = f"{method} {path} HTTP/1.1\r\n".encode() + HOST
    async with running_stage(api_keys="key", admin_key="admin") as stage:
        port = int(stage.url.rpartition(":")[2])
        for told, begun in (
            (b"Content-Length: 1000000\r\n", b"{"),
            (b"Content-Length: 99999999\r\n", b"{"),
            (b"Transfer-Encoding: chunked\r\n", b"1\r\n{\r\n"),
        ):
            for key in (b"", b"Authorization: Bearer other\r\n"):
                async with connected(port) as peer:
                    await peer.send(head + told + key + b"Content-Type: text/plain\r\n\r\n" + begun)
                    answer = await peer.answer(of_head=method == "HEAD")
                    assert (answer.status, answer.header("connection")) == (401, ["close"])


async def test_a_key_is_asked_for_before_anything_is_said_about_the_body() -> None:
    async with running_stage(api_keys="key", max_body_bytes=2048) as stage:
        for content in (b"{", b"[" * 900, b'{"unknown": 1}', b"a" * 4096, b"\xff"):
            for headers in (JSON, {"content-type": "text/plain"}, {**JSON, "content-encoding": "gzip"}):
                answer = await stage.client.post("/v1/research", content=content, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key")


@pytest.mark.parametrize("path", ["/v1/research", "/v1/chat/completions", "/v1/responses", "/v1/research/replay"])
@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "said"),
    [
        (b"{", JSON, 400, "invalid_json", "line 1, column 2"),
        (b"[" * 100_000, JSON, 400, "invalid_json", "nested too deep"),
        (b'{"a":' * 10_000, JSON, 400, "invalid_json", "nested too deep"),
        (b"[" * 201 + b"]" * 201, JSON, 400, "invalid_json", "nested too deep"),
        (b'{"a":' * 200 + b"[0]" + b"}" * 200, JSON, 400, "invalid_json", "nested too deep"),
        (b"[" * 200 + b"]" * 200, JSON, 400, None, "object"),
        (b'{"seed": ' + b"9" * 5000 + b"}", JSON, 400, "invalid_json", "number"),
        ('{"question": "é"}'.encode("latin-1"), JSON, 400, "invalid_json", "UTF-8"),
        (b"\x1f\x8b\x08\x00", JSON, 400, "invalid_json", ""),
        (b"\x1f\x8b\x08\x00", {**JSON, "content-encoding": "gzip"}, 415, "unsupported_media_type", "compressed"),
        (b"{}", {**JSON, "content-encoding": "br"}, 415, "unsupported_media_type", "compressed"),
        (b"{}", {}, 415, "unsupported_media_type", "send content-type: application/json"),
        (b"a=b", {"content-type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type", "application/"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type", "send content-type: application/json"),
        (b"{}", {"content-type": "multipart/form-data; boundary=a"}, 415, "unsupported_media_type", "send content"),
        (b"{}", {"content-type": "nonsense"}, 415, "unsupported_media_type", "'nonsense'"),
        (b"[" + b"0," * 200_000 + b"0]", JSON, 400, "too_many_values", "too many values"),
        (b'{"a": [' + b"{}," * 20_000 + b"{}]}", JSON, 400, "too_many_values", "too many values"),
        (b'{"a": [' + b'"",' * 20_000 + b'""]}', JSON, 400, "too_many_values", "too many values"),
        (b"{" + b",".join(b'"%d": 0' % i for i in range(600)) + b"}", JSON, 400, "too_many_values", "in one object"),
        (b'{"run":{"steps":[' + b"{}," * 9000 + b"{}]}}", JSON, 400, None, ""),
        (b"", JSON, 400, None, ""),
        (b"null", JSON, 400, None, ""),
    ],
)
async def test_a_body_that_is_not_what_it_must_be_is_refused_by_name(
    path: str, content: bytes, headers: dict[str, str], status: int, code: str | None, said: str, stage: Stage
) -> None:
    answer = await stage.client.post(path, content=content, headers=headers)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert code is None or error["code"] == code
    assert said in error["message"]
    assert "error parsing the body" not in error["message"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.a+json"]
)
async def test_every_way_to_say_json_is_taken(kind: str, stage: Stage) -> None:
    answer = await stage.client.post("/v1/research", content=b'{"question": "q"}', headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize("numbers", ["token_ids", "loss_mask", "sampled_ids"])
async def test_a_long_list_with_wrong_numbers_makes_one_error(
    numbers: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One error for each of half a million would take seconds, in which nothing else is served."""
    num_errors: list[int] = []
    errors = json_body_errors(num_errors)
    monkeypatch.setattr("searchr1.gateway.errors._from_validation", errors)
    segment = {"kind": "prompt", "turn": 0, "text": "", "token_ids": [], "loss_mask": [], numbers: [1.5] * 50_000}
    options = {"max_turns": 1, "top_k": 1, "temperature": 0}
    trajectory = {"question": "q", "profile": "p", "options": options, "segments": [segment]}
    run = {"id": "r", "created": 1, "model": "m", "question": "q", "status": "completed", "usage": {}}
    answer = await stage.client.post("/v1/research/replay", json={"run": {**run, "trajectory": trajectory}})
    assert answer.status_code == 400
    assert num_errors == [1]


def json_body_errors(counts: list[int]) -> Any:
    """``_from_validation``, which also counts the errors that it is given."""
    from searchr1.gateway import errors

    original = errors._from_validation

    def counted(error: Any) -> Any:
        counts.append(len(error.errors()))
        return original(error)

    return counted


def test_a_body_of_any_form_is_looked_at_for_a_bounded_number_of_values() -> None:
    seen = 0

    class Counted(list[Any]):
        def __iter__(self) -> Iterator[Any]:
            nonlocal seen
            for item in super().__iter__():
                seen += 1
                yield item

    deep: Any = {}
    for _ in range(500):
        deep = {"a": deep, "b": [deep, deep]}
    with pytest.raises(Exception, match="too many values"):
        json_body._check_size(deep)
    json_body._check_size(Counted([{"a": [1] * 100_000}] * 50))
    assert seen < 2 * json_body.MAX_VALUES


@pytest.mark.parametrize("path", OPEN_GETS)
async def test_head_is_get_without_its_body(path: str, stage: Stage) -> None:
    got, head = await stage.client.get(path), await stage.client.head(path)
    assert head.status_code == got.status_code < 400
    assert head.headers["content-type"] == got.headers["content-type"]
    assert head.content == b""
    assert (await stage.client.head(path)).status_code == got.status_code  # The connection is still in step.


async def test_head_of_what_streams_does_not_wait_for_it() -> None:
    engine = StageEngine(hold=asyncio.Event())
    asked = {"question": "q", "stream": True}
    async with running_stage(engine=engine) as stage, stage.client.stream("POST", "/v1/research", json=asked) as run:
        head = await stage.client.head(f"/v1/research/{run.headers['x-run-id']}/events")
        assert (head.status_code, head.content) == (200, b"")
        assert engine.num_open == 1
        assert engine.hold is not None
        engine.hold.set()
        assert "run.completed" in (await run.aread()).decode()


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/metrics", "/v1/research", "/docs"])
async def test_more_slashes_than_needed_are_served_and_never_redirected(path: str) -> None:
    host = {"host": "evil.example"}
    async with running_stage(open=True) as stage:
        plain = await stage.client.get(path)
        for written in (f"{path}/", f"/{path}", f"{path}//", path.replace("/", "//")):
            answer = await stage.client.get(stage.url + written, headers=host, follow_redirects=False)
            assert answer.status_code == plain.status_code
            assert "location" not in answer.headers
            assert answer.headers["content-type"] == plain.headers["content-type"]


async def test_posts_to_a_path_with_more_slashes_keep_their_body(stage: Stage) -> None:
    for path in ("/v1/research/", "//v1/research", "/v1//research//"):
        answer = await stage.client.post(stage.url + path, json={"question": "Mali?"})
        assert answer.json()["answer"] == "West African CFA franc"


@pytest.mark.parametrize(
    ("method", "path", "meant"),
    [
        ("POST", "/chat/completions", "/v1/chat/completions"),
        ("POST", "/completions", "/v1/chat/completions"),
        ("POST", "/v1/v1/chat/completions", "/v1/chat/completions"),
        ("POST", "/api/v1/responses", "/v1/responses"),
        ("POST", "/research", "/v1/research"),
        ("GET", "/models", "/v1/models"),
        ("GET", "/v1/v1/models", "/v1/models"),
        ("GET", "/nothing", None),
        ("POST", "/v1/embeddings", None),
        ("POST", "/tokenize", None),
        ("POST", "/detokenize", None),
        ("GET", "/v1/nothing", None),
        ("POST", "/v1/nothing/v1/neither", None),
    ],
)
async def test_a_path_without_its_prefix_is_told_the_right_one(
    method: str, path: str, meant: str | None, stage: Stage
) -> None:
    answer = await stage.client.request(method, path, json={})
    assert answer.status_code == 404
    message = answer.json()["error"]["message"]
    assert ("did you mean" in message) == (meant is not None)
    assert meant is None or message.endswith(f"; did you mean {meant}?")


async def test_health_is_ready_under_the_name_that_vllm_gives_it() -> None:
    engine = StageEngine()
    async with running_stage(engine=engine, api_keys="key") as stage:
        assert [(await stage.client.get(path)).status_code for path in ("/health", "/readyz", "/ping")] == [200] * 3
        engine.is_ready = False
        await eventually(lambda: not stage.services.readiness.engines[MODEL].part.ok)
        ready, health = await stage.client.get("/readyz"), await stage.client.get("/health")
        assert (ready.status_code, health.status_code) == (503, 503)
        assert (await stage.client.get("/ping")).status_code == 200
        assert (await stage.client.get("/version")).json() == {"version": APP.version}


async def test_the_headers_of_every_sdk_pass_a_preflight() -> None:
    wanted = "authorization,content-type,idempotency-key,openai-organization,x-api-key,x-stainless-lang,x-stainless-os"
    asks = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": wanted,
    }
    async with (
        running_stage(cors_origins="*", api_keys="key") as any_,
        running_stage(cors_origins="https://app.example") as one,
        running_stage() as none,
    ):
        for stage in (any_, one):
            for path in ("/v1/chat/completions", "/v1/responses", "/v1/research/"):
                answer = await stage.client.options(path, headers=asks)
                assert answer.status_code == 200
                assert set(answer.headers["access-control-allow-headers"].replace(" ", "").split(",")) >= set(
                    wanted.split(",")
                )
                assert "access-control-allow-credentials" not in answer.headers
        refused = await any_.client.post("/v1/research", json={}, headers={"origin": "https://app.example"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "*")
        answer = await none.client.options("/v1/research", headers=asks)
        assert answer.status_code == 405
        assert answer.headers["allow"]
        assert "access-control-allow-origin" not in answer.headers


BREAKS = "a\u2028b\u2029c\x85d"
RAW = ("\u2028".encode(), "\u2029".encode(), "\x85".encode())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/research", {"question": f"q {BREAKS}"}),
        ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": f"q {BREAKS}"}]}),
        ("/v1/responses", {"model": MODEL, "input": f"q {BREAKS}"}),
    ],
)
async def test_no_line_break_but_a_newline_is_sent_raw(path: str, asked: dict[str, Any], stream: bool) -> None:
    thought = ANSWER_TURN.replace("Found", BREAKS.replace("\x85", "\x85é"))
    engine = StageEngine([SEARCH_TURN.replace("currency", f"x{BREAKS}"), thought.replace("CFA", f"CFA{BREAKS}")])
    passage = Passage(id="1", title=f'"{BREAKS}"', text=f"t{BREAKS}", url=f"https://a.example/{BREAKS}", score=1.0)
    async with running_stage(engine=engine, retriever=StageRetriever(Found((passage,)))) as stage:
        body = (await stage.client.post(path, json={**asked, "stream": stream})).content
        assert not any(raw in body for raw in RAW)
        assert b"\\u2028" in body
        assert "é".encode() in body
        lines = [line[6:] for line in body.decode().splitlines() if line.startswith("data: {")] or [body.decode()]
        assert any("\u2028b\u2029c\x85" in json.dumps(json.loads(line), ensure_ascii=False) for line in lines) or stream
        run = (await stage.client.get("/v1/research")).json()["data"]
        for one in run:
            followed = await stage.client.get(f"/v1/research/{one['id']}/events")
            assert not any(raw in followed.content for raw in RAW)


async def test_a_client_that_leaves_past_a_request_sent_ahead_frees_the_engine(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = StageEngine(hold=asyncio.Event())
    body = b'{"question": "q"}'
    asked = b"POST /v1/research HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 17\r\n\r\n"
    async with running_stage(engine=engine) as stage:
        for hard in (False, True):
            async with connected(int(stage.url.rpartition(":")[2])) as peer:
                await peer.send(asked + body + asked + body)
                await eventually(lambda: engine.num_open == 1)
                peer.close(hard=hard)
                await eventually(lambda: engine.num_open == 0)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


async def test_bodies_on_their_way_are_bounded_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.gateway.app.BODIES_HELD", 2)
    asked = (
        b"POST /v1/research HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nContent-Length: 20000\r\n\r\n"
    )
    async with running_stage(max_body_bytes=20_000) as stage:
        port = int(stage.url.rpartition(":")[2])
        async with connected(port) as one, connected(port) as two, connected(port) as three:
            for peer in (one, two):
                await peer.send(asked + b"{" + b" " * 18_000)
            await three.send(asked + b" " * 10_000)
            answer = await three.answer()
            assert (answer.status, answer.header("retry-after")) == (503, ["2"])
            await one.send(b" " * 1999)
            assert (await one.answer()).status == 400
        async with connected(port) as peer:
            await peer.send(asked + b'{"question": "Mali?"}' + b" " * (20_000 - 21))
            assert (await peer.answer()).status == 200


async def test_what_java_asks_is_answered(stage: Stage) -> None:
    body = b'{"question": "Mali?"}'
    asked = b"POST /v1/research HTTP/1.1\r\n" + HOST + b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n"
    asked += b"Upgrade: h2c\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n"
    async with connected(int(stage.url.rpartition(":")[2])) as peer:
        await peer.send(asked, body)
        answer = await peer.answer()
    assert (answer.status, answer.json()["answer"]) == (200, "West African CFA franc")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/research", "GET, HEAD, POST"),
        ("/v1/research/replay", "POST"),
        ("/v1/research/run_1", "DELETE, GET, HEAD"),
        ("/v1/responses/resp_1", "DELETE, GET, HEAD"),
        ("/admin/replicas", "GET, HEAD, POST"),
        ("/admin/replicas/10.0.0.5:8000/drain", "POST"),
        ("/healthz", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_taken_is_told_all_that_are(stage: Stage, path: str, allowed: str) -> None:
    answer = await stage.client.put(path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["error"]["code"] == "method_not_allowed"
