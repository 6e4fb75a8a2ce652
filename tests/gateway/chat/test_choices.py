"""Several choices of one completion: runs of their own, side by side."""

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import EngineClosedError
from searchr1.gateway.access.admission import MAX_SEED
from searchr1.loop.types import TokenIds
from tests.gateway.conftest import MODEL, SEARCH_TURN, StageEngine, eventually, running_stage, sse_payloads

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "Which currency is used in Mali?"}
]
ASK: dict[str, Any] = {"model": MODEL, "messages": MESSAGES}


@dataclass
class ChoiceEngine(StageEngine):
    """Searches, then answers with its seed. First turns end once ``together`` choices have begun."""

    together: int = 1
    fails: int | None = None
    """The seed whose second turn breaks; other choices then stay in their first for good."""
    sessions: list[str] = field(default_factory=list)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        self.params.append(params)
        self.sessions.append(session)
        self.num_open += 1
        try:
            if self.sessions.count(session) == 1:
                yield Chunk("<think> I look. </think>", (1,))
                await eventually(lambda: len(set(self.sessions)) >= self.together)
                if self.fails is not None and params.seed != self.fails:
                    await asyncio.Event().wait()
                yield Chunk("<search> currency of Mali </search>", (2,), "stop")
            elif params.seed == self.fails:
                raise EngineClosedError("vLLM is gone")
            else:
                yield Chunk(f"<answer> {params.seed} </answer>", (3,), "stop")
        finally:
            self.num_open -= 1


async def test_each_choice_is_a_run_with_its_own_seed_and_the_usage_is_their_sum() -> None:
    async with running_stage(engine=ChoiceEngine()) as stage:
        one = (await stage.client.post("/v1/chat/completions", json={**ASK, "seed": 7})).json()
        several = (await stage.client.post("/v1/chat/completions", json={**ASK, "seed": 7, "n": 3})).json()
    ChatCompletion.model_validate(several)
    assert [choice["index"] for choice in several["choices"]] == [0, 1, 2]
    assert [choice["message"]["content"] for choice in several["choices"]] == ["7", "8", "9"]
    assert several["usage"]["num_searches"] == 3
    assert several["usage"]["prompt_tokens"] == 3 * one["usage"]["prompt_tokens"]
    assert several["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]
    assert [found["title"] for found in several["search_results"]] == ["Mali"]


async def test_choices_stream_side_by_side_and_are_told_apart_by_index() -> None:
    # No first turn ends before all have begun: one after the other would never end.
    engine = ChoiceEngine(together=3)
    async with running_stage(engine=engine) as stage:
        ask = {**ASK, "seed": 7, "n": 3, "stream": True, "stream_options": {"include_usage": True}}
        response = await stage.client.post("/v1/chat/completions", json=ask)
    *payloads, done = sse_payloads(response.text)
    assert done == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(json.loads(payload)) for payload in payloads]
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [choice.index for choice in choices if choice.delta.role] == [0, 1, 2]
    content = {i: "".join(c.delta.content or "" for c in choices if c.index == i) for i in range(3)}
    assert content == {0: "7", 1: "8", 2: "9"}
    assert sorted(choice.index for choice in choices if choice.finish_reason == "stop") == [0, 1, 2]
    assert chunks[-1].usage is not None
    assert len(set(engine.sessions)) == 3


async def test_the_sdks_stream_helper_takes_several_choices() -> None:
    async with (
        running_stage(engine=ChoiceEngine(together=2)) as stage,
        openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client,
        client.chat.completions.stream(model=MODEL, messages=MESSAGES, n=2, seed=0) as stream,
    ):
        completion = await stream.get_final_completion()
    assert [choice.message.content for choice in completion.choices] == ["0", "1"]


async def test_the_seed_after_the_last_one_is_the_first() -> None:
    engine = ChoiceEngine(together=2)
    async with running_stage(engine=engine) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, "seed": MAX_SEED, "n": 2})
    assert response.status_code == 200
    assert {params.seed for params in engine.params} == {MAX_SEED, 0}


async def test_more_choices_than_the_operator_allows_are_refused() -> None:
    async with running_stage(max_choices=2) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, "n": 3})
    assert response.status_code == 400
    assert response.json()["error"] == {
        "message": "'n' is 3; this server allows at most 2.",
        "type": "invalid_request_error",
        "param": "n",
        "code": "above_maximum",
    }


@pytest.mark.parametrize("stream", [False, True])
async def test_without_slots_for_all_choices_none_runs(stream: bool) -> None:
    async with running_stage(max_concurrent_runs=2) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, "n": 3, "stream": stream})
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "overloaded"
        assert stage.engine.prompts == []
        assert stage.services.default.seats.num_running == 0
        assert (await stage.client.post("/v1/chat/completions", json={**ASK, "n": 2})).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_one_choice_that_fails_ends_all(stream: bool) -> None:
    engine = ChoiceEngine(together=3, fails=1)
    async with running_stage(engine=engine) as stage:
        ask = {**ASK, "seed": 0, "n": 3, "stream": stream}
        response = await stage.client.post("/v1/chat/completions", json=ask)
        assert response.status_code == (200 if stream else 503)
        told = json.loads(sse_payloads(response.text)[-1]) if stream else response.json()
        assert told["error"]["code"] == "engine_unavailable"
        await eventually(lambda: engine.num_open == 0 and stage.services.default.seats.num_running == 0)


async def test_a_client_that_leaves_frees_all_choices() -> None:
    engine = StageEngine([SEARCH_TURN], hold=asyncio.Event())
    async with running_stage(engine=engine) as stage:
        asking = asyncio.ensure_future(stage.client.post("/v1/chat/completions", json={**ASK, "n": 3}))
        await eventually(lambda: engine.num_open == 3)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: engine.num_open == 0 and stage.services.default.seats.num_running == 0)
