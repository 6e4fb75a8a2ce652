"""New weights in a running vLLM: what it then says is, to the bit, what a fresh engine on them says."""

import asyncio
import shutil
from pathlib import Path

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import EngineError, EngineUnavailableError
from tests.engines.helpers import PROMPT, complete, metric, said, write_noisy_copy

pytestmark = pytest.mark.vllm


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two checkpoints with tied embeddings, and different weights throughout."""
    one, other = (tmp_path_factory.mktemp("weights") / name for name in ("one", "other"))
    shutil.copytree(CHECKPOINT, one)
    write_noisy_copy(CHECKPOINT, other)
    return one, other


def engine_on(folder: Path) -> VllmInProcessEngine:
    return VllmInProcessEngine(
        VllmInProcessConfig(
            str(folder), dtype="float32", enforce_eager=True, kv_cache_gib=0.25, max_model_len=4096, max_num_seqs=4
        )
    )


async def test_taken_weights_speak_as_those_of_a_fresh_engine(folders: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = folders
    async with engine_on(other) as fresh:
        wanted = await said(fresh)
    async with engine_on(one) as engine:
        first = await said(engine)
        assert first != wanted
        await engine.take_weights(other, version="2")
        assert await said(engine) == wanted
        await engine.take_weights(one, version="3")
        assert await said(engine) == first

        long = SamplingParams(max_tokens=400, temperature=1.0, seed=1)
        running = [asyncio.create_task(complete(engine, long, (*PROMPT, token))) for token in range(20, 24)]
        for version, folder in enumerate((other, one, other), start=4):
            await asyncio.sleep(0.1)
            await engine.take_weights(folder, version=str(version))
        for chunks in await asyncio.gather(*running):
            assert chunks[-1].finish is not None
        assert metric(await engine.metrics_text(), "vllm:num_requests_running") == 0
        assert await said(engine) == wanted

        with pytest.raises(EngineError, match="holds no weights"):
            await engine.take_weights(tmp_path, version="7")
        assert await said(engine) == wanted
        assert engine.config.model == str(other)


async def test_an_engine_that_is_down_takes_none() -> None:
    with pytest.raises(EngineUnavailableError, match="has not been started"):
        await engine_on(CHECKPOINT).take_weights(CHECKPOINT, version="1")
