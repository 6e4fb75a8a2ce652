"""The duties of every engine to its caller, held against the fake, vLLM over HTTP and in process, and transformers."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from searchr1.engines.base import SamplingParams, ServedEngine, Shaping
from searchr1.engines.factory import OPENERS, EngineConfig, open_engine
from searchr1.engines.scripted import ScriptedEngine
from searchr1.engines.vllm.http import VllmHttpEngine
from tests.engines.helpers import complete, ids_of, read_some, text_of
from tests.engines.vllm.fake_vllm import MODEL, serve_fake_vllm

pytestmark = pytest.mark.asyncio(loop_scope="session")
TURN = ("<think>", " a ", "</think>", "<answer>", " b ", "</answer>")


def encode(text: str) -> list[int]:
    return [len(text)]


@pytest.fixture
def scripted_engine() -> ScriptedEngine:
    return ScriptedEngine(itertools.repeat(TURN), encode=encode)


@pytest_asyncio.fixture(loop_scope="session")
async def fake_http_engine() -> AsyncIterator[VllmHttpEngine]:
    async with (
        serve_fake_vllm(itertools.repeat(TURN), encode=encode) as fake,
        VllmHttpEngine(fake.url, MODEL) as client,
    ):
        yield client


@pytest_asyncio.fixture(loop_scope="session")
async def fake_pool_engine() -> AsyncIterator[ServedEngine]:
    async with (
        serve_fake_vllm(itertools.repeat(TURN), encode=encode) as one,
        serve_fake_vllm(itertools.repeat(TURN), encode=encode) as two,
        open_engine(EngineConfig("vllm-pool", MODEL, urls=(one.url, two.url))) as pool,
    ):
        yield pool


@pytest_asyncio.fixture(loop_scope="session")
async def transformers_engine(model_dir: Path) -> AsyncIterator[ServedEngine]:
    async with open_engine(EngineConfig("transformers", str(model_dir), device="cpu", dtype="float32")) as engine:
        yield engine


KINDS = {
    "scripted_engine": "scripted",
    "fake_http_engine": "vllm-http",
    "fake_pool_engine": "vllm-pool",
    "transformers_engine": "transformers",
    "http_engine": "vllm-http",
    "local_engine": "vllm",
}
"""The kind that each fixture opens."""
MARKS = {"transformers_engine": pytest.mark.torch, "http_engine": pytest.mark.vllm, "local_engine": pytest.mark.vllm}


async def test_every_kind_is_here() -> None:
    assert set(OPENERS.all()) == set(KINDS.values())


@pytest.fixture(params=[pytest.param(name, marks=MARKS.get(name, ())) for name in KINDS])
def engine(request: pytest.FixtureRequest) -> ServedEngine:
    found: ServedEngine = request.getfixturevalue(request.param)
    return found


async def test_streams_and_ends_with_the_one_chunk_that_has_a_reason(engine: ServedEngine) -> None:
    chunks = await complete(engine, SamplingParams(max_tokens=40, temperature=0.0))
    assert len(chunks) >= 2
    assert text_of(chunks)
    assert [chunk.finish is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].finish in ("stop", "length")


async def test_a_greedy_completion_can_be_repeated(engine: ServedEngine) -> None:
    params = SamplingParams(max_tokens=40, temperature=0.0)
    first, second = await complete(engine, params), await complete(engine, params)
    assert text_of(first) == text_of(second)
    assert ids_of(first) == ids_of(second)


async def test_takes_shaping_and_keeps_to_it(engine: ServedEngine) -> None:
    greedy = await complete(engine, SamplingParams(max_tokens=20, temperature=0.0))
    likeliest = await complete(engine, SamplingParams(max_tokens=20, temperature=2.0, shaping=Shaping(top_k=1)))
    assert text_of(likeliest) == text_of(greedy)
    every = Shaping(top_k=20, min_p=0.1, repetition_penalty=1.5, frequency_penalty=2.0, presence_penalty=-2.0)
    assert text_of(await complete(engine, SamplingParams(max_tokens=20, shaping=every)))


async def test_gives_one_logprob_for_each_id_when_asked_and_none_otherwise(engine: ServedEngine) -> None:
    asked = await complete(engine, SamplingParams(max_tokens=12, logprobs=True))
    assert [len(chunk.logprobs or ()) for chunk in asked] == [len(chunk.token_ids) for chunk in asked]
    assert all(logprob <= 0 for chunk in asked for logprob in chunk.logprobs or ())
    plain = await complete(engine, SamplingParams(max_tokens=12))
    assert {chunk.logprobs for chunk in plain} == {None}


async def test_serves_many_at_once(engine: ServedEngine) -> None:
    params = SamplingParams(max_tokens=20, temperature=0.0)
    alone = text_of(await complete(engine, params))
    together = await asyncio.gather(*(complete(engine, params) for _ in range(16)))
    assert {len(text_of(chunks)) > 0 for chunks in together} == {True}
    assert text_of(together[0])[:2] == alone[:2]


async def test_serves_on_after_a_completion_was_closed_early(engine: ServedEngine) -> None:
    params = SamplingParams(max_tokens=30_000, temperature=0.0)
    some = await read_some(engine, params)
    again = await complete(engine, SamplingParams(max_tokens=40, temperature=0.0))
    assert len(some) == 2
    # A reader that is behind finds many tokens in its first two pieces.
    num_chars = min(len(text_of(some)), len(text_of(again)))
    assert num_chars
    assert text_of(again)[:num_chars] == text_of(some)[:num_chars]
    assert (await engine.health()).ok
