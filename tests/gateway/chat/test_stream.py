"""The stream of a chat completion: its chunks byte for byte, its heartbeats, its usage and how it ends."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.types import Send

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import EngineUnavailableError
from searchr1.gateway.chat.shape import ChatShape
from searchr1.gateway.routes import streaming
from searchr1.loop.types import TokenIds
from tests.gateway.conftest import (
    ANSWER_TURN,
    MODEL,
    SEARCH_TURN,
    Stage,
    StageEngine,
    eventually,
    running_stage,
    sse_payloads,
)

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "Which currency is used in Mali?"}
]
ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}
ANSWER = "West African CFA franc"


async def chunks_of(stage: Stage, **more: Any) -> list[dict[str, Any]]:
    """The payloads of a whole stream, each one valid for the SDK's own types."""
    response = await stage.client.post("/v1/chat/completions", json={**ASK, "stream": True, **more})
    assert response.headers["content-type"].startswith("text/event-stream")
    *payloads, done = sse_payloads(response.text)
    assert done == "[DONE]"
    chunks = [json.loads(payload) for payload in payloads]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk)
    return chunks


async def test_every_line_is_data_alone(stage: Stage) -> None:
    response = await stage.client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert all(line.startswith("data: ") for line in response.text.splitlines() if line)


async def test_the_chunks_of_an_answer(stage: Stage) -> None:
    chunks = await chunks_of(stage)
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}) == 1
    first, *reasoning, answer, last = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for chunk in reasoning:
        delta = chunk["choices"][0]["delta"]
        assert delta == {"reasoning": delta["reasoning"], "reasoning_content": delta["reasoning"]}
    assert answer["choices"][0]["delta"] == {"content": ANSWER}
    assert answer["citations"] == ["urn:passage:Mali"]
    assert answer["search_results"] == [
        {"title": "Mali", "url": "urn:passage:Mali", "snippet": "Mali uses the West African CFA franc."}
    ]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["choices"][0]["delta"] == {
        "content": "",
        "annotations": [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": 0,
                    "end_index": len(ANSWER),
                    "title": "Mali",
                    "url": "urn:passage:Mali",
                },
            }
        ],
    }
    assert not any("citations" in chunk for chunk in (first, *reasoning, last))
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-1])
    assert not any("usage" in chunk for chunk in chunks)


async def test_without_an_answer_the_last_chunk_carries_what_was_found() -> None:
    engine = StageEngine([SEARCH_TURN, "<answer> half an answer"])
    async with running_stage(engine=engine, max_turns=1) as stage:
        last = (await chunks_of(stage))[-1]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["citations"] == []
    assert [found["title"] for found in last["search_results"]] == ["Mali"]


async def test_the_usage_comes_last_and_is_null_before(stage: Stage) -> None:
    *others, usage = await chunks_of(stage, stream_options={"include_usage": True})
    assert all(chunk["usage"] is None for chunk in others)
    assert usage["choices"] == []
    whole = (await stage.client.post("/v1/chat/completions", json=ASK)).json()
    ChatCompletion.model_validate(whole)
    assert usage["usage"] == whole["usage"]
    counts = whole["usage"]
    assert counts["num_searches"] == 1
    assert counts["total_tokens"] == counts["prompt_tokens"] + counts["completion_tokens"]
    assert 0 <= counts["completion_tokens_details"]["reasoning_tokens"] <= counts["completion_tokens"]
    assert counts["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.fixture
def silent_engine(monkeypatch: pytest.MonkeyPatch) -> StageEngine:
    """An engine that says its last word after the stream's second heartbeat."""
    hold, pings, beat = asyncio.Event(), [], streaming.EventStream._beat

    async def counted(stream: streaming.EventStream, send: Send) -> None:
        await beat(stream, send)
        pings.append(1)
        if len(pings) == 2:
            hold.set()

    monkeypatch.setattr(streaming.EventStream, "_beat", counted)
    return StageEngine(hold=hold)


async def test_heartbeats_are_comment_lines_without_a_blank_one(silent_engine: StageEngine) -> None:
    async with running_stage(engine=silent_engine, heartbeat_s=0.05) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert ": ping\n" in response.text
    assert ": ping\n\n" not in response.text
    assert sse_payloads(response.text)[-1] == "[DONE]"


async def test_the_async_sdk_reads_over_heartbeats(silent_engine: StageEngine) -> None:
    async with (
        running_stage(engine=silent_engine, heartbeat_s=0.05) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        assert "".join([c.choices[0].delta.content or "" async for c in stream]) == ANSWER


async def test_the_sync_sdk_reads_over_heartbeats(silent_engine: StageEngine) -> None:
    def ask(url: str) -> str:
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            return "".join(c.choices[0].delta.content or "" for c in stream)

    async with running_stage(engine=silent_engine, heartbeat_s=0.05) as stage:
        assert await asyncio.to_thread(ask, f"{stage.url}/v1") == ANSWER


async def test_the_sdks_stream_helper_adds_up_to_the_whole_completion(silent_engine: StageEngine) -> None:
    async with (
        running_stage(engine=silent_engine, heartbeat_s=0.05) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client,
    ):
        async with client.chat.completions.stream(
            model=MODEL, messages=MESSAGES, stream_options={"include_usage": True}
        ) as stream:
            kinds = {event.type async for event in stream}
            streamed = await stream.get_final_completion()
        whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert {"chunk", "content.delta", "content.done"} <= kinds
    ours, theirs = streamed.choices[0].message, whole.choices[0].message
    assert (ours.content, ours.annotations) == (theirs.content, theirs.annotations)
    assert ours.annotations
    assert getattr(ours, "reasoning", None) == getattr(theirs, "reasoning", None)
    assert streamed.choices[0].finish_reason == "stop"
    assert streamed.usage == whole.usage


@dataclass
class DyingEngine(StageEngine):
    """Fails in its second turn, after some text."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        self.num_open += 1
        try:
            self.prompts.append(prompt_ids)
            if len(self.prompts) == 1:
                yield Chunk(SEARCH_TURN, (1,), "stop")
            else:
                yield Chunk("<think> I was about to", (1,))
                raise EngineUnavailableError("vLLM is gone")
        finally:
            self.num_open -= 1


async def test_a_stream_that_breaks_says_so_and_does_not_end_as_done() -> None:
    async with running_stage(engine=DyingEngine()) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, "stream": True})
        last = json.loads(sse_payloads(response.text)[-1])
        assert last["error"]["code"] == "engine_unavailable"
        assert set(last["error"]) == {"message", "type", "param", "code"}
        assert "[DONE]" not in response.text


async def test_a_stream_that_breaks_raises_in_the_sdk_after_what_came_before() -> None:
    async with (
        running_stage(engine=DyingEngine()) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client,
    ):
        stream = aiter(await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
        seen = ""

        async def read() -> None:
            nonlocal seen
            async for chunk in stream:
                seen += getattr(chunk.choices[0].delta, "reasoning", None) or ""

        with pytest.raises(openai.APIError, match="does not answer") as raised:
            await read()
        assert "[search] currency of Mali" in seen
        assert raised.value.code == "engine_unavailable"


async def test_a_bug_in_mid_stream_is_told_without_its_details(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole = ChatShape.chunk

    def broken(self: ChatShape, index: int, event: Any, fold: Any) -> dict[str, Any] | None:
        if event.type == "search.started":
            raise RuntimeError("secret detail")
        return whole(self, index, event, fold)

    monkeypatch.setattr(ChatShape, "chunk", broken)
    response = await stage.client.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert response.status_code == 200
    assert json.loads(sse_payloads(response.text)[-1])["error"]["code"] == "internal"
    assert "secret" not in response.text
    assert "secret detail" in caplog.text
    await eventually(lambda: stage.engine.num_open == 0 and stage.services.default.seats.num_running == 0)


async def test_closing_the_stream_frees_the_engine() -> None:
    engine = StageEngine([SEARCH_TURN, ANSWER_TURN], hold=asyncio.Event())
    async with (
        running_stage(engine=engine) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client,
    ):
        async with await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
            await anext(aiter(stream))
            await eventually(lambda: engine.num_open == 1)
        await eventually(lambda: engine.num_open == 0 and stage.services.default.seats.num_running == 0)
