"""The HTTP client against a server that speaks vLLM's wire and can fail in every way that matters."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, replace

import pytest

from searchr1.engines.base import Chunk, SamplingParams, Shaping
from searchr1.engines.vllm.http import HttpTimeouts, ServedModel, VllmHttpEngine, _CompletionReader
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from tests.engines.helpers import PROMPT, complete, ids_of, read_some, text_of
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, Fault, serve_fake_vllm

TURN: Sequence[str] = ("<think> é ", "</think>", "\n<search> q </sea", "rch>\n\n", "never read")
SHOWN = "<think> é </think>\n<search> q </search>"
PARAMS = SamplingParams(max_tokens=500, stop=("</search>", "</answer>"), temperature=0.0, seed=7)


def encode(text: str) -> list[int]:
    return list(text.encode())


@pytest.fixture
async def fake() -> AsyncIterator[FakeVllm]:
    async with serve_fake_vllm(itertools.repeat(TURN), encode=encode) as server:
        yield server


@pytest.fixture
async def engine(fake: FakeVllm) -> AsyncIterator[VllmHttpEngine]:
    timeouts = HttpTimeouts(read_s=0.3)
    async with VllmHttpEngine(fake.url + "/", MODEL, api_key="secret", timeouts=timeouts) as client:
        yield client


async def test_streams_text_and_the_ids_of_whole_tokens(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    fake.num_cached_tokens = 64
    chunks = await complete(engine, PARAMS)
    assert text_of(chunks) == SHOWN
    assert ids_of(chunks) == tuple(encode("".join(TURN[:4])))
    assert [chunk.finish for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert [chunk.num_cached_tokens for chunk in chunks] == [None] * (len(chunks) - 1) + [64]
    assert all(chunk.logprobs is None for chunk in chunks)


def test_events_that_arrive_together_become_one_chunk() -> None:
    def event(text: str, ids: list[int]) -> bytes:
        choice = {"text": text, "token_ids": ids, "logprobs": {"token_logprobs": [-1.0] * len(ids)}}
        return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"

    reader = _CompletionReader()
    together = reader.feed(event("a", [1]) + event("bc", [2, 3]) + event("d", [4])[:9])
    assert together == Chunk("abc", (1, 2, 3), None, (-1.0, -1.0, -1.0))
    assert reader.feed(event("d", [4])[9:]) == Chunk("d", (4,), None, (-1.0,))


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_the_cuts_of_the_transport_do_not_matter(engine: VllmHttpEngine, fake: FakeVllm, size: int) -> None:
    whole = await complete(engine, PARAMS)
    fake.bytes_per_write = size
    cut = await complete(engine, PARAMS)
    assert text_of(cut) == text_of(whole)
    assert ids_of(cut) == ids_of(whole)
    assert cut[-1] == whole[-1]


async def test_asks_for_exactly_what_the_loop_needs(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    await complete(engine, PARAMS)
    assert fake.bodies == [
        {
            "model": MODEL,
            "prompt": list(PROMPT),
            "max_tokens": 500,
            "temperature": 0.0,
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "frequency_penalty": 0.0,
            "presence_penalty": 0.0,
            "stop": ["</search>", "</answer>"],
            "include_stop_str_in_output": True,
            "return_token_ids": True,
            "stream": True,
            "stream_options": {"include_usage": True},
            "seed": 7,
        }
    ]


async def test_passes_shaping_on(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    shaping = Shaping(top_k=20, min_p=0.1, repetition_penalty=1.1, frequency_penalty=-0.5, presence_penalty=1.5)
    await complete(engine, replace(PARAMS, shaping=shaping))
    assert asdict(shaping).items() <= fake.bodies[0].items()


async def test_turns_of_a_session_have_ids_of_their_own_on_one_connection(
    engine: VllmHttpEngine, fake: FakeVllm
) -> None:
    for _ in range(3):
        await complete(engine, PARAMS)
    assert [header["X-Session-ID"] for header in fake.headers] == ["test"] * 3
    assert len({header["X-Request-Id"] for header in fake.headers}) == 3
    assert {header["Authorization"] for header in fake.headers} == {"Bearer secret"}
    assert len(set(fake.ports)) == 1


@pytest.mark.parametrize("declared", [False, True])
async def test_sends_a_priority_only_to_a_priority_scheduler(fake: FakeVllm, declared: bool) -> None:
    async with VllmHttpEngine(fake.url, MODEL, priority_scheduling=declared) as engine:
        async for _ in engine.generate(PROMPT, PARAMS, session="s", priority=-2):
            pass
    assert fake.bodies[0].get("priority") == (-2 if declared else None)


async def test_the_token_limit_ends_a_completion_as_length(engine: VllmHttpEngine) -> None:
    chunks = await complete(engine, SamplingParams(max_tokens=len(encode(TURN[0])) + 3))
    assert len(ids_of(chunks)) == len(encode(TURN[0])) + 3
    assert chunks[-1].finish == "length"


async def test_gives_the_sampled_tokens_logprobs_when_asked(engine: VllmHttpEngine) -> None:
    chunks = await complete(engine, SamplingParams(max_tokens=500, logprobs=True))
    assert [chunk.logprobs for chunk in chunks] == [(-0.5,) * len(chunk.token_ids) for chunk in chunks]


async def test_a_server_that_does_not_tell_cached_tokens_leaves_them_unknown(
    engine: VllmHttpEngine, fake: FakeVllm
) -> None:
    fake.num_cached_tokens = None
    assert (await complete(engine, PARAMS))[-1].num_cached_tokens is None


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (Fault.REFUSE_BUSY, EngineOverloadedError, "503: The engine is currently busy"),
        (Fault.REFUSE_RATE, EngineOverloadedError, "429: Too many requests"),
        (Fault.REFUSE_BROKEN, EngineUnavailableError, "500: EngineCore encountered"),
        (Fault.REFUSE_REQUEST, EngineError, "400: max_tokens must be at least 1"),
        (Fault.BUSY_IN_STREAM, EngineOverloadedError, "within its stream: The engine is currently busy"),
        (Fault.ERROR_IN_STREAM, EngineUnavailableError, "within its stream: EngineCore encountered"),
        (Fault.UNFINISHED, EngineError, "ended before its completion"),
        (Fault.GARBAGE, EngineError, "can't be read"),
        (Fault.DROP, EngineUnavailableError, "http://127.0.0.1"),
        (Fault.STALL, EngineUnavailableError, "[Tt]imeout"),
    ],
)
async def test_every_fault_has_its_type_and_none_outlives_its_completion(
    engine: VllmHttpEngine, fake: FakeVllm, fault: Fault, kind: type[EngineError], message: str
) -> None:
    fake.fault = fault
    with pytest.raises(EngineError, match=message) as raised:
        await complete(engine, PARAMS)
    assert type(raised.value) is kind
    fake.fault = None
    assert text_of(await complete(engine, PARAMS)) == SHOWN


async def test_a_refused_connection_is_an_unavailable_engine() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        async with VllmHttpEngine(f"http://127.0.0.1:{closed.getsockname()[1]}", MODEL) as engine:
            with pytest.raises(EngineUnavailableError, match=r"http://127\.0\.0\.1"):
                await complete(engine, PARAMS)
            with pytest.raises(EngineUnavailableError):
                await engine.models()
            assert not await engine.ready()


async def test_closing_the_iterator_closes_the_connection(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    fake.fault = Fault.STALL
    assert len(await read_some(engine, PARAMS, 1)) == 1
    await fake.idle.wait()
    assert fake.num_running == 0


async def test_cancelling_the_reader_closes_the_connection(fake: FakeVllm) -> None:
    fake.fault = Fault.STALL
    async with VllmHttpEngine(fake.url, MODEL) as engine:
        reading = asyncio.create_task(complete(engine, PARAMS))
        await fake.busy.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await fake.idle.wait()


async def test_tells_the_models_the_health_and_the_metrics(engine: VllmHttpEngine, fake: FakeVllm) -> None:
    assert await engine.models() == [ServedModel(MODEL, 4096)]
    assert await engine.ready()
    assert "vllm:num_requests_running" in await engine.metrics_text()
    fake.fault = Fault.REFUSE_BROKEN
    assert not await engine.ready()
