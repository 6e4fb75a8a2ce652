"""Several servers as one engine; and a server's weights replaced over HTTP."""

import itertools
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Engine, ServedEngine, TakesWeights
from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.errors import EngineError, EngineUnavailableError
from tests.engines.helpers import GREEDY, PROMPT, said, write_noisy_copy
from tests.engines.vllm.fake_vllm import serve_fake_vllm
from tests.support.vllm_server import run_vllm


def encode(text: str) -> list[int]:
    return list(text.encode())


def opened(*urls: str) -> AbstractAsyncContextManager[ServedEngine]:
    return open_engine(EngineConfig("vllm-replicas", "", urls=urls))


async def ask(engine: Engine, session: str) -> None:
    async for _ in engine.generate(PROMPT, GREEDY, session=session):
        pass


async def test_sessions_take_turns_and_stay_where_they_are() -> None:
    turns = itertools.repeat("<answer> a </answer>")
    async with (
        serve_fake_vllm(turns, encode=encode) as one,
        serve_fake_vllm(turns, encode=encode) as two,
        opened(one.url, two.url) as engine,
    ):
        assert isinstance(engine, TakesWeights)
        assert (await engine.health()).ok
        for session in ("a", "b", "c", "a", "b", "a"):
            await ask(engine, session)
        sessions = [[headers["X-Session-ID"] for headers in server.headers] for server in (one, two)]
        assert sessions == [["a", "c", "a", "a"], ["b", "b"]]
        with pytest.raises(EngineError, match=f"{one.url}.*VLLM_SERVER_DEV_MODE=1.*{two.url}"):
            await engine.take_weights(Path("nowhere"), version="1")


async def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineUnavailableError, match=r"127\.0\.0\.1:9"):
        async with opened("http://127.0.0.1:9"):
            pass


@pytest.mark.vllm
@pytest.mark.timeout(600)
async def test_weights_sent_over_http_speak_as_those_of_a_fresh_server(tmp_path: Path) -> None:
    """On a checkpoint with tied embeddings."""
    other = tmp_path / "other"
    write_noisy_copy(CHECKPOINT, other)
    with run_vllm(other, tmp_path / "fresh.log") as server:
        async with opened(server.url) as engine:
            wanted = await said(engine)
    with run_vllm(CHECKPOINT, tmp_path / "synced.log", takes_weights=True) as server:
        async with opened(server.url) as engine:
            first = await said(engine)
            assert first != wanted
            assert isinstance(engine, TakesWeights)
            await engine.take_weights(other, version="2")
            assert await said(engine) == wanted
            with pytest.raises(EngineError, match="did not reach every replica"):
                await engine.take_weights(tmp_path / "nothing", version="3")
            await engine.take_weights(CHECKPOINT, version="4")
            assert await said(engine) == first
