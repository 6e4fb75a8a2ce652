"""Whatever a client sends: a 4xx that says what to do, never a 5xx, and the server still answers afterwards."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from .conftest import MODEL, Stage, StageEngine, eventually, running_stage

BODIES: list[tuple[str, bytes]] = [
    ("not JSON", b"{"),
    ("empty", b""),
    ("not an object", b"[1, 2]"),
    ("null", b"null"),
    ("not UTF-8", b'{"question": "\xff\xfe"}'),
    ("lone surrogate", b'{"question": "\\ud800 what?"}'),
    ("NUL", b'{"question": "what\\u0000?"}'),
    ("no question", b"{}"),
    ("empty question", b'{"question": ""}'),
    ("blank question", b'{"question": " \\n\\t "}'),
    ("question of another type", b'{"question": 5}'),
    ("huge question", json.dumps({"question": "x" * 100_000}).encode()),
    ("long prompt", json.dumps({"question": "é" * 4000}).encode()),
    ("control token", b'{"question": "a <|im_end|> b"}'),
    ("deep nesting", b"[" * 200_000),
    ("unknown field", b'{"question": "q", "max_turn": 3}'),
    ("zero turns", b'{"question": "q", "max_turns": 0}'),
    ("too many turns", b'{"question": "q", "max_turns": 1000000}'),
    ("negative searches", b'{"question": "q", "max_searches": -1}'),
    ("too many passages", b'{"question": "q", "top_k": 1000}'),
    ("absurd tokens", b'{"question": "q", "max_tokens": 99999999999999999999999999}'),
    ("NaN", b'{"question": "q", "temperature": NaN}'),
    ("infinity", b'{"question": "q", "deadline_s": 1e999}'),
    ("hot", b'{"question": "q", "temperature": 3}'),
    ("negative seed", b'{"question": "q", "seed": -1}'),
    ("huge seed", b'{"question": "q", "seed": 18446744073709551616}'),
    ("stream of another type", b'{"question": "q", "stream": "perhaps"}'),
]


@pytest.mark.parametrize("body", [b for _, b in BODIES], ids=[name for name, _ in BODIES])
async def test_bad_research_requests_get_a_400_that_says_why(stage: Stage, body: bytes) -> None:
    response = await stage.client.post("/v1/research", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) > 10
    assert error["code"]
    assert stage.engine.prompts == []
    assert (await stage.client.post("/v1/research", json={"question": "Mali?"})).status_code == 200


CHAT: list[tuple[str, dict[str, Any], int]] = [
    ("no messages", {"messages": []}, 400),
    ("assistant last", {"messages": [{"role": "assistant", "content": "hi"}]}, 400),
    ("unknown role", {"messages": [{"role": "wizard", "content": "hi"}]}, 400),
    ("image", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400),
    ("no text", {"messages": [{"role": "user", "content": ""}]}, 400),
    ("too many answers", {"messages": [{"role": "user", "content": "q"}], "n": 5}, 400),
    ("unknown model", {"model": "gpt-9", "messages": [{"role": "user", "content": "q"}]}, 404),
]


@pytest.mark.parametrize(("change", "status"), [c[1:] for c in CHAT], ids=[c[0] for c in CHAT])
async def test_bad_chat_requests_get_an_openai_shaped_error(stage: Stage, change: dict[str, Any], status: int) -> None:
    response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, **change})
    assert response.status_code == status, response.text
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_a_model_name_that_is_not_unicode_is_still_answered(stage: Stage) -> None:
    body = b'{"question": "q", "model": "\\ud800"}'
    response = await stage.client.post("/v1/research", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


async def test_bounds_are_named_in_the_message(stage: Stage) -> None:
    response = await stage.client.post("/v1/research", json={"question": "q", "max_turns": 99})
    assert response.json()["error"] == {
        "message": "'max_turns' is 99; this server allows at most 4.",
        "type": "invalid_request_error",
        "param": "max_turns",
        "code": "above_maximum",
    }


async def test_a_body_over_the_limit_is_refused_even_without_its_length() -> None:
    async def chunks() -> Any:
        for _ in range(64):
            yield b" " * 1024

    async with running_stage(max_body_bytes=16_384) as stage:
        headers = {"content-type": "application/json"}
        told = await stage.client.post("/v1/research", content=b" " * 20_000, headers=headers)
        untold = await stage.client.post("/v1/research", content=chunks(), headers=headers)
        for response in (told, untold):
            assert response.status_code == 413
            assert response.json()["error"]["code"] == "request_too_large"


async def test_unknown_paths_and_methods_have_the_same_shape(stage: Stage) -> None:
    for response, status in (
        (await stage.client.get("/v1/nothing"), 404),
        (await stage.client.put("/v1/research"), 405),
    ):
        assert response.status_code == status
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"]


async def test_a_harmless_request_id_is_kept_and_a_harmful_one_replaced(stage: Stage) -> None:
    kept = await stage.client.get("/healthz", headers={"x-request-id": "mine-42"})
    assert kept.headers["x-request-id"] == "mine-42"
    replaced = await stage.client.get("/healthz", headers={"x-request-id": "a b<script>"})
    assert replaced.headers["x-request-id"].startswith("req_")


async def test_keys_guard_the_api_and_not_the_probes() -> None:
    async with running_stage(api_keys="first,second") as stage:
        assert (await stage.client.get("/healthz")).status_code == 200
        ask = {"question": "Mali?"}
        refused: list[httpx.Response] = [
            await stage.client.post("/v1/research", json=ask),
            await stage.client.post("/v1/research", json=ask, headers={"authorization": "Bearer third"}),
            await stage.client.post("/v1/research", json=ask, headers={"authorization": "Basic first"}),
            await stage.client.get("/v1/models"),
        ]
        assert [r.status_code for r in refused] == [401] * 4
        assert refused[1].json()["error"]["code"] == "invalid_api_key"
        allowed = await stage.client.post("/v1/research", json=ask, headers={"authorization": "Bearer second"})
        assert allowed.status_code == 200


async def test_a_body_that_does_not_arrive_is_given_up() -> None:
    async with running_stage(body_timeout_s=0.2) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(stage.url.rpartition(":")[2]))
        head = b"POST /v1/research HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100"
        writer.write(head + b"\r\n\r\n{")
        answer = await reader.readuntil(b"}}")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"request_timeout"' in answer
        writer.close()
        await writer.wait_closed()


async def test_a_slow_run_is_not_taken_for_a_slow_body() -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine, body_timeout_s=0.5) as stage:
        asking = asyncio.create_task(stage.client.post("/v1/research", json={"question": "Mali?"}))
        await eventually(lambda: engine.num_open == 1)
        await asyncio.sleep(0.6)
        assert engine.hold is not None
        engine.hold.set()
        assert (await asking).status_code == 200


async def test_a_bug_is_an_error_like_any_other(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(stage.services.default.admission, "plan", broken)
    response = await stage.client.post("/v1/research", json={"question": "Mali?"})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal"
    assert "secret" not in response.text
    assert response.headers["x-request-id"]
