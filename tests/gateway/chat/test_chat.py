"""Chat Completions through the unmodified ``openai`` SDK."""

import openai
import pytest

from searchr1.errors import EngineUnavailableError
from tests.gateway.conftest import MODEL, Stage, StageEngine, running_stage

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "user", "content": "Which currency is used in Mali?"}
]


def sdk(stage: Stage) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{stage.url}/v1", api_key="none", max_retries=0)


async def test_streaming_and_not_give_the_same_message(stage: Stage) -> None:
    async with sdk(stage) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
        ]
    message = whole.choices[0].message
    assert message.content == "West African CFA franc"
    assert whole.choices[0].finish_reason == "stop"
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert "".join(d.content or "" for d in deltas) == message.content
    reasoning = "".join(getattr(d, "reasoning", None) or "" for d in deltas)
    assert reasoning == getattr(message, "reasoning", None)
    assert reasoning == getattr(message, "reasoning_content", None)
    assert "[search] currency of Mali" in reasoning
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens


async def test_the_answer_is_cited(stage: Stage) -> None:
    async with sdk(stage) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    annotations = whole.choices[0].message.annotations
    assert annotations is not None
    citation = annotations[0].url_citation
    assert citation.title == "Mali"
    assert (citation.start_index, citation.end_index) == (0, len("West African CFA franc"))


async def test_an_answer_that_is_never_closed_is_not_sent_as_content() -> None:
    engine = StageEngine(["<answer> half an answer"])
    async with running_stage(engine=engine) as stage, sdk(stage) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        content = "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])
    assert content == ""


async def test_an_engine_that_fails_raises_in_the_sdk() -> None:
    engine = StageEngine(error=EngineUnavailableError("vLLM is gone"))
    async with running_stage(engine=engine) as stage, sdk(stage) as client:
        with pytest.raises(openai.InternalServerError, match="does not answer"):
            await client.chat.completions.create(model=MODEL, messages=MESSAGES)
        with pytest.raises(openai.InternalServerError, match="does not answer"):
            async for _ in await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True):
                pass


async def test_earlier_messages_become_context_of_the_question(stage: Stage) -> None:
    async with sdk(stage) as client:
        await client.chat.completions.create(
            model=MODEL,
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Where is Timbuktu?"},
                {"role": "assistant", "content": "Mali"},
                {"role": "user", "content": "And its currency?"},
            ],
        )
    prompt = stage.services.default.tokenizer.decode(stage.engine.prompts[0])
    assert (
        "instructions:\nBe brief.\n\nGiven this conversation:\nuser: Where is Timbuktu?\nassistant: Mali\n\nAnd its"
        in prompt
    )


async def test_limits_that_openai_clients_send_are_honored(stage: Stage) -> None:
    async with sdk(stage) as client:
        await client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0.7, top_p=0.5, seed=3, max_tokens=1_000_000
        )
    params = stage.engine.params[0]
    assert (params.temperature, params.top_p, params.seed, params.max_tokens) == (0.7, 0.5, 3, 500)


async def test_the_model_is_listed(stage: Stage) -> None:
    async with sdk(stage) as client:
        listed = await client.models.list()
        one = await client.models.retrieve(MODEL)
    assert [m.id for m in listed.data] == [MODEL]
    assert one.id == MODEL
