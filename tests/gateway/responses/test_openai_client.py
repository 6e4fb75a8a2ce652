"""The real ``openai`` client against a running gateway: sync, async, its streaming helper, and every call it has."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionWebSearch,
    ResponseInputParam,
    ResponseOutputMessage,
    ResponseReasoningItem,
    WebSearchToolParam,
)

from searchr1.errors import EngineUnavailableError
from tests.gateway.conftest import MODEL, Stage, StageEngine, running_stage
from tests.gateway.responses.conftest import types_of

QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"
TOOLS: list[WebSearchToolParam] = [{"type": "web_search"}]


@pytest.fixture
async def client(stage: Stage) -> AsyncIterator[openai.AsyncOpenAI]:
    async with client_of(stage) as client:
        yield client


def client_of(stage: Stage) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)


def check(response: Response) -> None:
    assert response.output_text == ANSWER
    first, search, second, message = response.output
    assert isinstance(first, ResponseReasoningItem)
    assert first.content is not None
    assert first.content[0].text == "I need Mali."
    assert isinstance(search, ResponseFunctionWebSearch)
    assert search.action.type == "search"
    assert search.action.query == "currency of Mali"
    assert isinstance(second, ResponseReasoningItem)
    assert isinstance(message, ResponseOutputMessage)
    part = message.content[0]
    assert part.type == "output_text"
    citation = part.annotations[0]
    assert citation.type == "url_citation"
    assert part.text[citation.start_index : citation.end_index] == ANSWER


async def test_create(client: openai.AsyncOpenAI) -> None:
    check(await client.responses.create(model=MODEL, input=QUESTION, tools=TOOLS))


async def test_create_from_sync_code(stage: Stage) -> None:
    def ask() -> None:
        with openai.OpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0) as client:
            asked: ResponseInputParam = [{"role": "user", "content": QUESTION}]
            check(client.responses.create(model=MODEL, input=asked, tools=TOOLS))
            streamed = [event.type for event in client.responses.create(model=MODEL, input=QUESTION, stream=True)]
            assert streamed[-1] == "response.completed"
            with client.responses.stream(model=MODEL, input=QUESTION, tools=TOOLS) as stream:
                assert "response.web_search_call.searching" in [event.type for event in stream]
                check(stream.get_final_response())

    await asyncio.to_thread(ask)


async def test_the_streaming_helper(client: openai.AsyncOpenAI) -> None:
    reasoning = ""
    async with client.responses.stream(model=MODEL, input=QUESTION, tools=TOOLS) as stream:
        async for event in stream:
            if event.type == "response.reasoning_text.delta":
                reasoning += event.delta
            elif event.type == "response.output_text.done":
                assert event.text == ANSWER
        final = await stream.get_final_response()
    check(final)
    assert reasoning == "I need Mali.Found it."


async def test_a_stream_is_taken_up_by_the_helper_and_by_hand(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input=QUESTION, background=True)
    stream = await client.responses.retrieve(made.id, stream=True)
    whole = [event async for event in stream]
    resumed = await client.responses.retrieve(made.id, stream=True, starting_after=5)
    assert [event async for event in resumed] == whole[6:]
    async with client.responses.stream(response_id=made.id, starting_after=5) as helped:
        assert types_of([{"type": event.type} async for event in helped]) == types_of(
            [{"type": event.type} for event in whole[6:]]
        )


async def test_stored_responses(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input=QUESTION, metadata={"a": "b"}, tools=TOOLS)
    again = await client.responses.retrieve(made.id, include=["web_search_call.results"])
    check(again)
    assert (again.output[1].model_extra or {})["results"]
    items = [item async for item in client.responses.input_items.list(made.id, limit=1)]
    assert [item.type for item in items] == ["message"]
    follow_up = await client.responses.create(model=MODEL, input="And Chad?", previous_response_id=made.id)
    assert follow_up.previous_response_id == made.id
    await client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match=made.id):
        await client.responses.retrieve(made.id)


async def test_cancel(stage: Stage, client: openai.AsyncOpenAI) -> None:
    stage.engine.hold = asyncio.Event()
    made = await client.responses.create(model=MODEL, input=QUESTION, background=True)
    assert made.status == "in_progress"
    cancelled = await client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"


FUNCTION: FunctionToolParam = {"type": "function", "name": "f", "parameters": None, "strict": None}


async def test_functions_are_taken_and_not_called_and_a_demand_is_refused(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input=QUESTION, tools=[FUNCTION])
    assert made.output_text == ANSWER
    assert [tool.type for tool in made.tools] == ["function"]
    with pytest.raises(openai.BadRequestError, match="searches by itself"):
        await client.responses.create(model=MODEL, input=QUESTION, tools=[FUNCTION], tool_choice="required")


async def test_compact(client: openai.AsyncOpenAI) -> None:
    made = await client.responses.create(model=MODEL, input=QUESTION)
    compacted = await client.responses.compact(model=MODEL, previous_response_id=made.id)
    window = [item.model_dump(exclude_none=True) for item in compacted.output]
    follow_up = await client.responses.create(model=MODEL, input=[*window, {"role": "user", "content": "And Chad?"}])  # type: ignore[list-item]
    assert follow_up.output_text == ANSWER


async def test_heartbeats_break_no_stream() -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine, heartbeat_s=0.02) as stage, client_of(stage) as client:
        assert engine.hold is not None
        hold = engine.hold
        seen = []
        async with client.responses.stream(model=MODEL, input=QUESTION, tools=TOOLS) as stream:
            async for event in stream:
                seen.append(event.type)
                if len(seen) == 2:
                    asyncio.get_running_loop().call_later(0.2, hold.set)
            check(await stream.get_final_response())


async def test_a_broken_engine() -> None:
    async with (
        running_stage(engine=StageEngine(error=EngineUnavailableError("gone"))) as stage,
        client_of(stage) as client,
    ):
        for stream in (True, False):
            with pytest.raises(openai.InternalServerError) as caught:
                await client.responses.create(model=MODEL, input=QUESTION, stream=stream)
            assert caught.value.status_code == 503
