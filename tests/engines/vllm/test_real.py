"""What only a real vLLM can show, over HTTP and in process alike."""

import asyncio
import multiprocessing
import os
import signal

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds
from searchr1.tokenizer import Tokenizer
from tests.engines.helpers import (
    PROMPT,
    Measured,
    complete,
    ids_of,
    metric,
    read_some,
    text_of,
    until_running,
)
from tests.support.tiny_model import MAX_MODEL_LEN
from tests.support.vllm_server import VllmServer

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]

GREEDY = SamplingParams(max_tokens=60, temperature=0.0)
ENDLESS = SamplingParams(max_tokens=30_000, temperature=0.0)
"""Half a minute and more, if nothing stops it."""
BLOCK = 32


@pytest.fixture(params=["http_engine", "local_engine"])
def engine(request: pytest.FixtureRequest) -> Measured:
    found: Measured = request.getfixturevalue(request.param)
    return found


async def test_both_ways_give_the_ids_and_text_of_an_unstreamed_completion(
    http_engine: VllmHttpEngine, local_engine: VllmInProcessEngine, vllm_server: VllmServer
) -> None:
    body = {"model": vllm_server.model, "prompt": list(PROMPT), "max_tokens": 60, "temperature": 0.0}
    async with http_engine._http.post(
        f"{vllm_server.url}/v1/completions", json=body | {"return_token_ids": True}
    ) as response:
        whole = (await response.json())["choices"][0]
    for engine in (http_engine, local_engine):
        chunks = await complete(engine, GREEDY)
        assert ids_of(chunks) == tuple(whole["token_ids"])
        assert text_of(chunks) == whole["text"]
        assert chunks[-1].finish == whole["finish_reason"] == "length"


async def test_both_ways_give_the_same_logprobs(http_engine: VllmHttpEngine, local_engine: VllmInProcessEngine) -> None:
    params = SamplingParams(max_tokens=10, temperature=0.0, logprobs=True)
    remote, local = await complete(http_engine, params), await complete(local_engine, params)
    flat = [[value for chunk in chunks for value in chunk.logprobs or ()] for chunks in (remote, local)]
    assert flat[0] == pytest.approx(flat[1], abs=1e-4)
    assert len(flat[0]) == 10


async def test_a_stop_string_ends_the_text_and_only_the_ids_overrun_it(engine: Measured, tokenizer: Tokenizer) -> None:
    free = await complete(engine, GREEDY)
    stop = _stop_inside_a_token(ids_of(free), tokenizer)
    params = SamplingParams(max_tokens=60, temperature=0.0, stop=("never</search>", stop))
    chunks = await complete(engine, params)
    text = text_of(free)
    assert text_of(chunks) == text[: text.index(stop) + len(stop)]
    assert chunks[-1].finish == "stop"
    assert ids_of(chunks) == ids_of(free)[: len(ids_of(chunks))]
    decoded = tokenizer.decode(ids_of(chunks))
    assert decoded.startswith(text_of(chunks))
    assert len(decoded) > len(text_of(chunks))
    assert len(tokenizer.decode(ids_of(chunks)[:-1])) < len(text_of(chunks))


def _stop_inside_a_token(ids: TokenIds, tokenizer: Tokenizer) -> str:
    """Text that ends before the end of a token of several characters, at its first occurrence."""
    text = tokenizer.decode(ids)
    for count in range(2, len(ids)):
        start, end = len(tokenizer.decode(ids[: count - 1])), len(tokenizer.decode(ids[:count]))
        stop = text[start - 2 : end - 1]
        if end - start > 1 and end > 12 and text.index(stop) + len(stop) == end - 1:
            return stop
    raise AssertionError(f"no token in {text!r} can hold a stop's end")


async def test_closing_the_iterator_frees_the_engine(engine: Measured) -> None:
    await until_running(engine, 0)
    before = metric(await engine.metrics_text(), "vllm:generation_tokens_total")
    some = await read_some(engine, ENDLESS)
    await until_running(engine, 0)
    assert len(some) == 2
    assert metric(await engine.metrics_text(), "vllm:generation_tokens_total") - before < ENDLESS.max_tokens


async def test_cancelling_the_reader_frees_the_engine(engine: Measured) -> None:
    reading = asyncio.create_task(complete(engine, ENDLESS))
    await until_running(engine, 1, reading)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await until_running(engine, 0)


async def test_the_next_turn_finds_every_full_block_of_this_one_in_the_cache(engine: Measured) -> None:
    prompt = tuple(range(40, 240))
    first = await complete(engine, GREEDY, prompt)
    computed = len(prompt) + len(ids_of(first)) - 1  # The last sampled token was never an input.
    observation = tuple(range(60, 150))
    second = await complete(engine, GREEDY, prompt + ids_of(first) + observation)
    assert first[-1].num_cached_tokens == 0
    assert second[-1].num_cached_tokens == computed // BLOCK * BLOCK


async def test_a_request_that_cannot_be_served_is_refused_with_the_engines_words(engine: Measured) -> None:
    with pytest.raises(EngineError, match=str(MAX_MODEL_LEN)) as raised:
        await complete(engine, GREEDY, (5,) * (MAX_MODEL_LEN + 1))
    assert type(raised.value) is EngineError
    with pytest.raises(EngineError, match=r"out of vocabulary|vocab") as raised:
        await complete(engine, GREEDY, (10**6,))
    assert type(raised.value) is EngineError


async def test_tells_the_name_and_the_length_of_its_model(http_engine: VllmHttpEngine) -> None:
    models = await http_engine.models()
    assert [(model.name, model.max_model_len) for model in models] == [("tiny", MAX_MODEL_LEN)]


async def test_a_killed_engine_is_a_typed_error_and_comes_back(local_engine: VllmInProcessEngine) -> None:
    core = _engine_core()
    reading = [asyncio.create_task(complete(local_engine, ENDLESS)) for _ in range(3)]
    await until_running(local_engine, 3)
    os.kill(core, signal.SIGKILL)
    errors = await asyncio.gather(*reading, return_exceptions=True)
    assert [type(error) for error in errors] == [EngineUnavailableError] * 3
    assert not (await local_engine.health()).ok
    with pytest.raises(EngineUnavailableError, match="down"):
        await complete(local_engine, GREEDY)
    for _ in range(1200):
        if (await local_engine.health()).ok:
            break
        await asyncio.sleep(0.1)
    assert _engine_core() != core
    assert len(ids_of(await complete(local_engine, GREEDY))) == 60


def _engine_core() -> int:
    """The process id of the engine core that this process has started."""
    pid = next(child for child in multiprocessing.active_children() if child.name == "EngineCore").pid
    assert pid is not None
    return pid
