"""Gateways for real clients: that answer, die in mid-run, fall silent for a while, or think without end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import EngineError
from searchr1.loop.types import Passage, TokenIds
from searchr1.retrieval.base import Found
from tests.gateway.conftest import StageEngine, StageRetriever

QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"
QUERY = "currency of Mali"
URL = "https://atlas.example/mali"
THOUGHTS = ("I need Mali.", "Found it.")
FAILURE = "The model's engine failed at this run; the server's log has the details."


def retriever(*, url: str | None = URL) -> StageRetriever:
    """Finds one passage that has the answer and one that has not."""
    mali = Passage(id="1", title='"Mali"', text="Mali uses the West African CFA franc.", url=url, score=2.5)
    niger = Passage(id="2", title='"Niger"', text="Niger lies east of Mali.", url=url and f"{url}/niger", score=1.5)
    return StageRetriever(Found((mali, niger)))


@dataclass
class TurnsEngine(StageEngine):
    """Searches in the first turn of each run and answers in the second, however many runs there are at once."""

    sessions: list[str] = field(default_factory=list)
    """The session of each completion."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the completion of the run's turn."""
        of_turn = StageEngine([self.completions[self.sessions.count(session) % 2]])
        self.sessions.append(session)
        async with aclosing(of_turn.generate(prompt_ids, params, session=session, priority=priority)) as source:
            async for chunk in source:
                yield chunk


@dataclass
class DyingEngine(StageEngine):
    """Searches, then dies in the second turn, after its first word."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the next completion, or part of it."""
        dies = len(self.prompts) % 2 == 1
        source = super().generate(prompt_ids, params, session=session, priority=priority)
        try:
            async for chunk in source:
                yield chunk
                if dies:
                    raise EngineError(FAILURE)
        finally:
            await source.aclose()


@dataclass
class PausingEngine(StageEngine):
    """Waits for heartbeats before the first word of every turn."""

    pings: list[object] = field(default_factory=list)
    """One for each heartbeat that was sent."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream the next completion after two heartbeats more; for streams alone."""
        source = super().generate(prompt_ids, params, session=session, priority=priority)
        wanted = len(self.pings) + 2
        try:
            async for chunk in source:
                while len(self.pings) < wanted:  # noqa: ASYNC110 (heartbeats have no event)
                    await asyncio.sleep(0.01)
                yield chunk
        finally:
            await source.aclose()


def endless_engine() -> StageEngine:
    """Thinks in its first turn and never says the last word of it."""
    return StageEngine(hold=asyncio.Event())
