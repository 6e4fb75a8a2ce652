"""vLLM in this process, opened by its name. A second engine of a process takes vLLM's metrics from the first, and
``test_real.py`` reads those of the session's: so this file comes after it.
"""

import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams, TakesWeights, TellsMetrics
from searchr1.engines.factory import EngineConfig, open_engine
from tests.engines.helpers import complete


@pytest.mark.vllm
@pytest.mark.timeout(300)
async def test_vllm_starts_in_this_process_and_takes_weights() -> None:
    config = EngineConfig("vllm", str(CHECKPOINT), dtype="float32", kv_cache_gib=0.1, enforce_eager=True)
    async with open_engine(config) as engine:
        chunks = await complete(engine, SamplingParams(max_tokens=4, temperature=0.0))
        assert chunks[-1].finish == "length"
        assert isinstance(engine, TakesWeights)
        assert isinstance(engine, TellsMetrics)
    assert not (await engine.health()).ok
