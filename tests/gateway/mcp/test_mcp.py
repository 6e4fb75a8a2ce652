"""``/mcp`` through the protocol's own client: both tools, progress, keys and bounds, and a client that leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs
import pytest

from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, TextContent
from searchr1.errors import EngineUnavailableError
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.stored_key import StoredLimits, made_key
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from tests.gateway.conftest import (
    ANSWER_TURN,
    SEARCH_TURN,
    Other,
    Stage,
    StageEngine,
    StageRetriever,
    eventually,
    running_stage,
)

QUESTION = {"question": "Which currency is used in Mali?"}
ERAS = ["auto", "legacy"]
"""Today's protocol, without a handshake, and the one before it."""


@asynccontextmanager
async def connected(
    stage: Stage, *, mode: Any = "auto", key: str | None = None, **headers: str
) -> AsyncIterator[Client]:
    """A client of the protocol, with a key where one is given."""
    keyed = {} if key is None else {"authorization": f"Bearer {key}"}
    async with httpx2.AsyncClient(headers=keyed | headers) as http:
        transport = streamable_http_client(f"{stage.url}/mcp", http_client=http)
        async with Client(transport, mode=mode) as client:
            yield client


def text_of(result: CallToolResult) -> str:
    [content] = result.content
    assert isinstance(content, TextContent)
    return content.text


@pytest.mark.parametrize("mode", ERAS)
async def test_research_gives_the_answer_with_citations_and_tells_its_steps(mode: str) -> None:
    steps: list[tuple[float, str | None]] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        steps.append((progress, message))

    async with running_stage() as stage, connected(stage, mode=mode) as client:
        result = await client.call_tool("research", QUESTION, progress_callback=on_progress)
    assert not result.is_error
    assert text_of(result) == "West African CFA franc\n\nSources:\n[1] Mali"
    assert result.structured_content["answer"] == "West African CFA franc"
    assert result.structured_content["citations"] == [
        {"title": "Mali", "url": None, "passage": "Mali uses the West African CFA franc."}
    ]
    assert result.structured_content["queries"] == ["currency of Mali"]
    assert steps == [(1, "Searching: currency of Mali"), (2, "Read 1 passages: Mali")]


async def test_research_asks_the_named_model() -> None:
    small = Other("small", StageEngine(["<answer> from the small one </answer>"]))
    async with running_stage(others=[small]) as stage, connected(stage) as client:
        results = [
            await client.call_tool("research", {**QUESTION, **named})
            for named in ({}, {"model": "small"}, {"model": "x"})
        ]
    told = [None if result.is_error else result.structured_content["model"] for result in results]
    assert told == ["test-model", "small", None]
    assert "serves 'test-model', 'small'" in text_of(results[2])


@pytest.mark.parametrize("mode", ERAS)
async def test_search_gives_passages_and_runs_no_model(mode: str) -> None:
    async with running_stage() as stage, connected(stage, mode=mode) as client:
        result = await client.call_tool("search", {"query": "Mali", "top_k": 1})
    assert [passage["title"] for passage in result.structured_content["passages"]] == ["Mali"]
    assert stage.engine.prompts == []


async def test_both_tools_show_passages_alike_and_without_what_steers_their_reader() -> None:
    hostile = Passage(
        id="1", title='"\u202eMa\x1b[2Jli"\u2066', text="Mali uses\x9b31m the \u202eWest African CFA franc.\x07"
    )
    one_line = Passage(id="2", title="The West African CFA franc \u2069is used in eight countries.", text="")
    retriever = StageRetriever(Found((hostile, one_line)))
    async with running_stage(retriever=retriever) as stage, connected(stage) as client:
        searched = await client.call_tool("search", {"query": "Mali"})
        asked = await client.call_tool("research", QUESTION)
    shown = [
        ("Ma[2Jli", "Mali uses31m the West African CFA franc."),
        ("", "The West African CFA franc is used in eight countries."),
    ]
    assert [(p["title"], p["text"]) for p in searched.structured_content["passages"]] == shown
    assert [(p["title"], p["passage"]) for p in asked.structured_content["citations"]] == shown
    for result in (searched, asked):
        assert all(char == "\n" or char.isprintable() for char in text_of(result))


async def test_results_are_as_the_listed_schemas_say() -> None:
    async with running_stage() as stage, connected(stage) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"research", "search"}
        for name, arguments in (("research", QUESTION), ("search", {"query": "Mali"})):
            jsonschema_rs.validate(tools[name].input_schema, arguments)
            result = await client.call_tool(name, arguments)
            output_schema = tools[name].output_schema
            assert output_schema is not None
            jsonschema_rs.validate(output_schema, result.structured_content)


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("research", {}, "question"),
        ("research", {"question": ""}, "question"),
        ("research", {"question": "  \n"}, "question"),
        ("research", {"question": 5}, "question"),
        ("research", {"question": "q" * 9000}, "characters"),
        ("research", {"question": "<|im_start|>"}, "question"),
        ("research", {**QUESTION, "top_k": 11}, "top_k"),
        ("research", {**QUESTION, "top_k": 0}, "top_k"),
        ("research", {**QUESTION, "max_searches": -1}, "max_searches"),
        ("research", {**QUESTION, "model": "x"}, "model"),
        ("search", {"query": ""}, "query"),
        ("search", {"query": "q" * 1001}, "query"),
        ("search", {"query": "Mali", "top_k": 11}, "top_k"),
        ("answer", {}, "no tool"),
    ],
)
async def test_a_call_that_cannot_be_answered_tells_the_model_why(name: str, arguments: Any, says: str) -> None:
    async with running_stage() as stage, connected(stage) as client:
        result = await client.call_tool(name, arguments)
    assert result.is_error
    assert says in text_of(result)
    assert stage.engine.prompts == []
    assert stage.retriever.queries == []


async def test_failures_behind_the_gateway_name_nothing_internal() -> None:
    engine = StageEngine(error=EngineUnavailableError("the engine at http://user:secret@10.0.0.7:8000 is down"))
    failed = SearchFailed("unavailable", "http://user:secret@10.0.0.8/retrieve does not answer", provider="http")
    async with running_stage(engine=engine, retriever=StageRetriever(failed)) as stage, connected(stage) as client:
        for name, arguments in (("research", QUESTION), ("search", {"query": "Mali"})):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert not any(word in text_of(result) for word in ("secret", "10.0.0", "http"))


async def test_a_full_server_refuses_a_call() -> None:
    hold = asyncio.Event()
    engine = StageEngine(hold=hold)
    async with running_stage(engine=engine, max_concurrent_runs=1) as stage, connected(stage) as client:
        first = asyncio.create_task(client.call_tool("research", QUESTION))
        await eventually(lambda: engine.num_open == 1)
        for name, arguments in (("research", QUESTION), ("search", {"query": "Mali"})):
            result = await client.call_tool(name, arguments)
            assert result.is_error
            assert "try again" in text_of(result)
        hold.set()
        assert not (await first).is_error


async def test_keys_are_asked_for() -> None:
    async with running_stage(api_keys="good") as stage:
        for headers in ({}, {"authorization": "Bearer bad"}, {"authorization": "Basic Z29vZA=="}):
            assert (await stage.client.post("/mcp", headers=headers)).status_code == 401
        async with connected(stage, key="good") as client:
            assert not (await client.call_tool("research", QUESTION)).is_error


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_leaves_frees_the_engine(mode: str) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine) as stage:
        async with connected(stage, mode=mode) as client:
            asking = asyncio.create_task(client.call_tool("research", QUESTION))
            await eventually(lambda: engine.num_open == 1)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: engine.num_open == 0)
        assert stage.services.default.seats.num_running == 0


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"jsonrpc":"2.0","id":1,"method":"nope"}', b"\xff", b"[" * 5000, b"1" * 6000]
)
async def test_what_is_no_message_gets_an_error(stage: Stage, body: bytes) -> None:
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    response = await stage.client.post("/mcp", content=body, headers=headers)
    assert response.status_code in (200, 400, 404)
    assert "error" in response.text


@pytest.mark.parametrize("tool", ["research", "search"])
async def test_no_line_break_but_a_newline_is_sent_raw(tool: str) -> None:
    breaks = "a\u2028b\u2029c\x85dé"
    passage = Passage(id="1", title=f'"{breaks}"', text=f"West African CFA franc {breaks}", score=1.0)
    engine = StageEngine([SEARCH_TURN.replace("currency", breaks), ANSWER_TURN.replace("CFA", f"CFA {breaks}")])
    arguments = {"question": f"q {breaks}"} if tool == "research" else {"query": "q"}
    params = {"name": tool, "arguments": arguments, "_meta": {"progressToken": 1}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {"accept": "application/json, text/event-stream"}
    async with running_stage(engine=engine, retriever=StageRetriever(Found((passage,)))) as stage:
        answer = await stage.client.post("/mcp", json=call, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert not any(raw in answer.text for raw in "\u2028\u2029\x85")
    sent = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "a\u2028b\u2029c" in json.dumps(sent, ensure_ascii=False)


async def test_a_stream_without_a_question_is_not_held_open(stage: Stage) -> None:
    async with stage.client.stream("GET", "/mcp", headers={"accept": "text/event-stream"}) as response:
        assert response.status_code == 405


async def test_searches_are_charged_to_the_caller() -> None:
    retriever = StageRetriever(Found(()))
    async with running_stage(retriever=retriever, api_keys="good") as stage, connected(stage, key="good") as client:
        result = await client.call_tool("search", {"query": "nothing"})
    assert text_of(result) == "Nothing was found."
    assert retriever.queries == ["nothing"]


async def test_calls_beyond_a_keys_limits_are_counted(tmp_path: Path) -> None:
    text, key = made_key("one", now=1, limits=StoredLimits(requests_per_minute=1))
    await KeyFile(tmp_path / "keys.json").add(key)
    async with running_stage(keys_file=tmp_path / "keys.json") as stage, connected(stage, key=text) as client:
        results = [await client.call_tool("search", {"query": "Mali"}) for _ in range(3)]
        metrics = (await stage.client.get("/metrics")).text
    assert [result.is_error for result in results] == [False, True, True]
    assert "may make 1 requests a minute" in text_of(results[1])
    assert 'searchr1_requests_limited_total{limit="requests_per_minute"} 2.0' in metrics
