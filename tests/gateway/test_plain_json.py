"""No JSON of the gateway holds what steers a terminal, turns the reading direction or breaks a line; its values do."""

import json
from typing import Any

import pytest

from searchr1.loop.types import Passage
from searchr1.printable import STEERING_IN_JSON
from searchr1.retrieval.base import Found
from tests.gateway.conftest import (
    ANSWER_TURN,
    MODEL,
    SEARCH_TURN,
    StageEngine,
    StageRetriever,
    running_stage,
    sse_payloads,
)

HOSTILE = "a\u202egpj.exe\u202c\x9b31m\x9d0;t\x9c\x7f\u2066b\u2069\u200f\u061c\u2028é日"
ASKED = [
    ("/v1/research", {"question": f"q {HOSTILE}"}),
    ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": f"q {HOSTILE}"}]}),
    ("/v1/responses", {"model": MODEL, "input": f"q {HOSTILE}", "tools": [{"type": "web_search"}]}),
]


def hostile_run() -> dict[str, Any]:
    """A run whose every text is hostile: queries, reasoning, answer, titles, passages, addresses."""
    thought = ANSWER_TURN.replace("Found", HOSTILE).replace("CFA", f"CFA{HOSTILE}")
    passage = Passage(id="1", title=f'"{HOSTILE}"', text=f"t {HOSTILE}", url=f"https://a.example/{HOSTILE}", score=1.0)
    return {
        "engine": StageEngine([SEARCH_TURN.replace("currency", f"x{HOSTILE}"), thought]),
        "retriever": StageRetriever(Found((passage,))),
    }


def assert_plain(body: str) -> None:
    assert STEERING_IN_JSON.search(body) is None
    assert "\\u" in body


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("path", "asked"), ASKED)
async def test_answers_streams_and_what_is_stored_of_them(path: str, asked: dict[str, Any], stream: bool) -> None:
    async with running_stage(**hostile_run()) as stage:
        answer = await stage.client.post(path, json={**asked, "stream": stream})
        assert answer.status_code == 200
        assert_plain(answer.text)
        payloads = [json.loads(data) for data in sse_payloads(answer.text) if data != "[DONE]"] or [answer.json()]
        assert "gpj.exe\u202c\x9b31m" in json.dumps(payloads, ensure_ascii=False)
        if path == "/v1/research":
            stored = f"{path}/{answer.headers['x-run-id']}"
            for kept in ("/v1/research", stored, f"{stored}/events"):
                assert_plain((await stage.client.get(kept)).text)
            assert_plain((await stage.client.post(f"{stored}/cancel")).text)
            assert_plain((await stage.client.post(f"{path}/replay", json={"run_id": stored.split("/")[-1]})).text)
        elif path == "/v1/responses":
            response_id = payloads[-1]["response"]["id"] if stream else payloads[0]["id"]
            for kept in (f"{path}/{response_id}", f"{path}/{response_id}/input_items"):
                assert_plain((await stage.client.get(kept)).text)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/nowhere/\u202e%C2%9B%7F", None),
        ("GET", "/v1/research/\u202e%C2%9B", None),
        ("GET", "/v1/models/\u202e%C2%9B", None),
        ("POST", "/v1/chat/completions", {"model": HOSTILE, "messages": [{"role": "user", "content": "q"}]}),
        ("POST", "/v1/chat/completions", {"model": MODEL, "messages": [{"role": HOSTILE, "content": "q"}]}),
        ("POST", "/v1/research", {"question": "q", HOSTILE: 1}),
        ("POST", "/v1/responses", {"model": MODEL, "input": "q", "include": [HOSTILE]}),
    ],
)
async def test_errors_that_quote_the_request(method: str, path: str, body: dict[str, Any] | None) -> None:
    async with running_stage() as stage:
        answer = await stage.client.request(method, path, json=body)
        assert answer.status_code in (400, 404)
        assert STEERING_IN_JSON.search(answer.text) is None
        assert answer.json()["error"]["message"]


async def test_what_tools_of_assistants_say() -> None:
    params = {"name": "research", "arguments": {"question": f"q {HOSTILE}"}, "_meta": {"progressToken": HOSTILE}}
    call = {"jsonrpc": "2.0", "id": HOSTILE, "method": "tools/call", "params": params}
    headers = {"accept": "application/json, text/event-stream"}
    async with running_stage(**hostile_run()) as stage:
        answer = await stage.client.post("/mcp", json=call, headers=headers)
        assert_plain(answer.text)
        assert json.loads(sse_payloads(answer.text)[-1])["id"] == HOSTILE
        unknown = await stage.client.post("/mcp", json={**call, "method": HOSTILE}, headers=headers)
        assert STEERING_IN_JSON.search(unknown.text) is None
