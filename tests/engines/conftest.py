"""The real engines, each opened once, on the session's event loop."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from tests.support.vllm_server import VllmServer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local_engine(model_dir: Path) -> AsyncIterator[VllmInProcessEngine]:
    """The session's vLLM in this process; a test that kills it waits until it is up again."""
    config = VllmInProcessConfig(
        model=str(model_dir),
        dtype="float32",
        kv_cache_gib=0.25,
        block_size=32,
        enforce_eager=True,
        priority_scheduling=True,
        restart_backoff_s=0.01,
    )
    async with VllmInProcessEngine(config) as engine:
        yield engine


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def http_engine(vllm_server: VllmServer) -> AsyncIterator[VllmHttpEngine]:
    """The client of the session's vLLM server."""
    async with VllmHttpEngine(vllm_server.url, vllm_server.model, priority_scheduling=True) as engine:
        yield engine
