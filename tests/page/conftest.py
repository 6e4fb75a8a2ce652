"""One browser for all tests of the page, and engines whose pace a test sets."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.types import TokenIds
from tests.gateway.conftest import Stage, StageEngine, running_stage

from .browser import open_browser

QUESTION = "Which currency is used in Mali?"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """Debian's Chromium."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    async with open_browser() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def stage() -> AsyncIterator[Stage]:
    """A gateway with the default script: one search, then the answer."""
    async with running_stage() as running:
        yield running


@dataclass
class PacedEngine(StageEngine):
    """Gives a word for each ``go``; without one it waits."""

    steps: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    def go(self, num_words: int) -> None:
        """Let so many more words out."""
        for _ in range(num_words):
            self.steps.release()

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the next completion, word by word as they are let out."""
        source = super().generate(prompt_ids, params, session=session, priority=priority)
        try:
            async for chunk in source:
                await self.steps.acquire()
                yield chunk
        finally:
            await source.aclose()
