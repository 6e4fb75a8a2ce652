"""The gateway, or the gateway without one of its parts, which no setting takes away.

    python -m loadtests.agents.gateway serve …      # as ``searchr1 serve``; SEARCHR1_ENGINE may name a kind from here

A part is taken away at the engine, behind which everything else stays the real server.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from loadtests.agents.script import CHECKPOINT
from searchr1.cli.main import main
from searchr1.engines.base import Chunk, EngineHealth, SamplingParams, ServedEngine, TellsMetrics
from searchr1.engines.factory import EngineConfig, open_engine, register
from searchr1.loop.types import TokenIds


class WithoutAdmission:
    """An engine that does not tell what it holds: the number of runs alone bounds who may start."""

    def __init__(self, inner: ServedEngine) -> None:
        self.inner = inner

    def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        return self.inner.generate(prompt_ids, params, session=session, priority=priority)

    async def health(self) -> EngineHealth:
        """See ``ServedEngine``."""
        return await self.inner.health()


class WithoutEarlyDispatch(WithoutAdmission):
    """An engine that gives out a completion at its end: no search is sent while it still writes."""

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        asked = self.inner.generate(prompt_ids, params, session=session, priority=priority)
        async with aclosing(asked) as chunks:
            pieces = [chunk async for chunk in chunks]
        text, ids = "".join(chunk.text for chunk in pieces), (chunk.token_ids for chunk in pieces)
        yield msgspec.structs.replace(pieces[-1], text=text, token_ids=tuple(chain.from_iterable(ids)))

    async def metrics_text(self) -> str:
        """See ``TellsMetrics``."""
        assert isinstance(self.inner, TellsMetrics)
        return await self.inner.metrics_text()


class WithoutStops(WithoutEarlyDispatch):
    """An engine that writes on past the closing tag, until the text ends by itself."""

    def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        return super().generate(prompt_ids, replace(params, stop=()), session=session, priority=priority)


class WithoutExactPrefixes(WithoutAdmission):
    """An engine that is sent text: the whole of it is tokenized anew each turn."""

    def __init__(self, inner: ServedEngine) -> None:
        super().__init__(inner)
        self._tokenizer = Tokenizer.from_file(str(Path(os.environ[CHECKPOINT]) / "tokenizer.json"))

    def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """See ``Engine``."""
        text = self._tokenizer.decode(list(prompt_ids), skip_special_tokens=False)
        again = tuple(self._tokenizer.encode(text, add_special_tokens=False).ids)
        return super().generate(again, params, session=session, priority=priority)

    async def metrics_text(self) -> str:
        """See ``TellsMetrics``."""
        assert isinstance(self.inner, TellsMetrics)
        return await self.inner.metrics_text()


def _opener(
    kind: Callable[[ServedEngine], ServedEngine],
) -> Callable[[EngineConfig], AbstractAsyncContextManager[ServedEngine]]:
    @asynccontextmanager
    async def opened(config: EngineConfig) -> AsyncIterator[ServedEngine]:
        async with open_engine(replace(config, kind="vllm-http")) as engine:
            yield kind(engine)

    return opened


PARTS = {
    "without-admission": WithoutAdmission,
    "without-early-dispatch": WithoutEarlyDispatch,
    "without-stops": WithoutStops,
    "without-exact-prefixes": WithoutExactPrefixes,
}
"""Kinds of engines, by the part that they take away."""

if __name__ == "__main__":
    for name, part in PARTS.items():
        register(name)(_opener(part))
    main()
