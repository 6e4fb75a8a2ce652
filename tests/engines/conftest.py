"""Every engine behind one name, and the real one that runs in this process."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from tests.conftest import MAX_MODEL_LEN

from searchr1.engines.local import LocalEngine, LocalEngineConfig


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local_engine(model_dir: Path) -> AsyncIterator[LocalEngine]:
    """The session's vLLM in this process; a test that kills it waits until it is up again."""
    config = LocalEngineConfig(
        model=str(model_dir),
        dtype="float32",
        max_model_len=MAX_MODEL_LEN,
        kv_cache_gib=0.25,
        block_size=32,
        enforce_eager=True,
        priority_scheduling=True,
        restart_backoff_s=0.01,
    )
    async with LocalEngine(config) as engine:
        yield engine
