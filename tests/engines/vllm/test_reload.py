"""A real vLLM in this process under a gateway: bad weights leave it as it was, and a core that hangs is noticed."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import EngineUnavailableError
from searchr1.tokenizer import Tokenizer
from tests.engines.helpers import PROMPT, complete, said, write_noisy_copy
from tests.gateway.conftest import Stage, StageEngine, running_stage
from tests.support.checkpoints import DAMAGES, HARMLESS, damaged_copy

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]

SILENCE_S = 9.0
ENDLESS = SamplingParams(max_tokens=3000, temperature=0.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine() -> AsyncIterator[VllmInProcessEngine]:
    config = VllmInProcessConfig(
        str(CHECKPOINT),
        dtype="float32",
        enforce_eager=True,
        kv_cache_gib=0.25,
        max_model_len=4096,
        max_num_seqs=4,
        silence_s=SILENCE_S,
        engine_args={"--enable-prefix-caching": False},
    )
    async with VllmInProcessEngine(config) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(engine: VllmInProcessEngine) -> AsyncIterator[Stage]:
    async with running_stage(engine=cast("StageEngine", engine), admin_key="root") as running:
        running.services.default.tokenizer = Tokenizer.load(str(CHECKPOINT))
        running.services.default.served_from = str(CHECKPOINT)
        yield running


async def reload(stage: Stage, folder: Path) -> tuple[int, str]:
    headers = {"Authorization": "Bearer root"}
    answer = await stage.client.post("/admin/reload", json={"folder": str(folder)}, headers=headers, timeout=300)
    return answer.status_code, (answer.json().get("error") or {}).get("code", "")


async def test_no_damaged_folder_touches_the_engine_while_it_works(
    stage: Stage, engine: VllmInProcessEngine, tmp_path: Path
) -> None:
    before = await said(engine)
    working = asyncio.create_task(complete(engine, ENDLESS))
    for i, (name, damage) in enumerate(DAMAGES.items()):
        folder = damaged_copy(CHECKPOINT, tmp_path / str(i), damage)
        assert await reload(stage, folder) == (400, "unusable_checkpoint"), name
    working.cancel()
    await asyncio.wait({working})
    assert await said(engine) == before
    assert engine.config.model == str(CHECKPOINT)


async def test_good_weights_are_taken_and_those_that_vllm_refuses_are_taken_back(
    stage: Stage, engine: VllmInProcessEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await said(engine)
    noisy, sharded = tmp_path / "noisy", damaged_copy(CHECKPOINT, tmp_path / "sharded", HARMLESS["in shards"])
    write_noisy_copy(CHECKPOINT, noisy)
    assert await reload(stage, noisy) == (200, "")
    second = await said(engine)
    assert second != first
    monkeypatch.setattr("searchr1.gateway.reload._check", lambda *_: None)
    # A NaN that got past the check would stay in the KV cache, whatever weights came after it.
    folder = damaged_copy(CHECKPOINT, tmp_path / "more", DAMAGES["one tensor more"])
    assert await reload(stage, folder) == (500, "reload_rolled_back")
    assert await said(engine) == second
    assert engine.config.model == str(noisy)
    assert await reload(stage, sharded) == (200, "")
    assert await said(engine) == first


async def test_a_core_that_stands_still_is_noticed_idle_and_at_work(engine: VllmInProcessEngine) -> None:
    first = await said(engine)
    # Other tests may have an engine of theirs, which is older.
    core = max(child.pid or 0 for child in multiprocessing.active_children() if child.name == "EngineCore")
    assert core > 0
    for is_working in (False, True):
        working = [asyncio.create_task(complete(engine, ENDLESS, (*PROMPT, 20 + i))) for i in range(3 * is_working)]
        await asyncio.sleep(0.5)
        os.kill(core, signal.SIGSTOP)
        try:
            await _until(engine, "stalled")
            errors = await asyncio.gather(*working, return_exceptions=True)
        finally:
            os.kill(core, signal.SIGCONT)
        assert [type(error) for error in errors] == [EngineUnavailableError] * len(working)
        await _until(engine, "")
        assert await said(engine) == first


async def _until(engine: VllmInProcessEngine, reason: str) -> None:
    for _ in range(1200):
        if (await engine.health()).reason == reason:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{await engine.health()}, not {reason!r}")
