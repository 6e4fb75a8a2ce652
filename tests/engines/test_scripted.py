import asyncio

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.engines.scripted import Hang, ScriptedEngine
from searchr1.errors import EngineUnavailableError, IllegalInputError
from tests.engines.helpers import PROMPT, complete, text_of


def encode(text: str) -> list[int]:
    return list(text.encode())


PARAMS = SamplingParams(max_tokens=9, stop=("b",))


async def test_replays_its_completions_in_the_given_chunks_and_records_the_requests() -> None:
    engine = ScriptedEngine(["ab", ["c", "d"]], encode=encode, finish="length")
    first, second = await complete(engine, PARAMS), await complete(engine, PARAMS, prompt=(1,))
    assert [chunk.text for chunk in first] == ["ab", ""]
    assert [chunk.token_ids for chunk in second] == [(99,), (100,), ()]
    assert first[-1].finish == "length"
    assert [request[0] for request in engine.requests] == [PROMPT, (1,)]
    assert engine.requests[0][1] == PARAMS


async def test_raises_and_hangs_where_the_script_says_so() -> None:
    engine = ScriptedEngine([["a", EngineUnavailableError("gone")], ["a", Hang.FOREVER], "z"], encode=encode)
    with pytest.raises(EngineUnavailableError, match="gone"):
        await complete(engine, PARAMS)
    hanging = asyncio.create_task(complete(engine, PARAMS))
    for _ in range(20):
        await asyncio.sleep(0)
    assert engine.num_running == 1
    assert not hanging.done()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert engine.num_running == 0
    assert text_of(await complete(engine, PARAMS)) == "z"


async def test_an_empty_script_is_a_bug_of_the_test() -> None:
    with pytest.raises(IllegalInputError, match="request 1"):
        await complete(ScriptedEngine([], encode=encode), PARAMS)
