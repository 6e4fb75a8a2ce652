"""Seeded completions under load: more prompt tokens at once than one step of vLLM takes."""

import asyncio

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from tests.engines.helpers import complete, ids_of

pytestmark = pytest.mark.vllm


async def test_many_long_seeded_prompts_are_all_served() -> None:
    config = VllmInProcessConfig(
        str(CHECKPOINT), enforce_eager=True, kv_cache_gib=0.5, max_model_len=4096, max_num_seqs=16
    )
    prompts = [tuple(range(300 + number, 1500 + number)) for number in range(24)]
    async with VllmInProcessEngine(config) as engine:
        params = [SamplingParams(max_tokens=8, temperature=1.0, seed=number) for number in range(24)]
        first = await asyncio.gather(*map(lambda p, prompt: complete(engine, p, prompt), params, prompts))
        assert all(chunks[-1].finish is not None for chunks in first)
        assert (await engine.health()).ok
        alone = ids_of(await complete(engine, params[5], prompts[5]))
        assert alone == ids_of(first[5])
