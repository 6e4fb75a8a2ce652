"""A fake engine for tests: it replays given texts, so that everything above it needs no model."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from itertools import cycle
from pathlib import Path

from searchr1.engines.base import Chunk, EngineHealth, SamplingParams, ServedEngine
from searchr1.engines.factory import EngineConfig, register
from searchr1.errors import ConfigurationError, EngineError, IllegalInputError
from searchr1.loop.types import Encode, FinishReason, TokenIds

Hang = Enum("Hang", ["FOREVER"])
Step = str | EngineError | Hang


class ScriptedEngine:
    """Replays ``completions``, one per request: a text is one chunk, in a sequence of steps each text is a chunk.

    A step may also be an error to raise, or ``Hang.FOREVER``. The ids of a chunk are ``encode`` of its text alone.
    """

    def __init__(
        self, completions: Iterable[str | Sequence[Step]], *, encode: Encode, finish: FinishReason = "stop"
    ) -> None:
        self._completions, self._encode, self._finish = iter(completions), encode, finish
        self.requests: list[tuple[TokenIds, SamplingParams, str, int]] = []  # ids, params, session, priority
        self.num_running = 0

    async def health(self) -> EngineHealth:
        """Return that all is well."""
        return EngineHealth(ok=True)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Replay the next completion. Raises ``IllegalInputError`` when the script has none left."""
        self.requests.append((prompt_ids, params, session, priority))
        if (completion := next(self._completions, None)) is None:
            raise IllegalInputError(f"the script has no completion for request {len(self.requests)}")
        self.num_running += 1
        try:
            for step in (completion,) if isinstance(completion, str) else completion:
                await (asyncio.Event().wait() if isinstance(step, Hang) else asyncio.sleep(0))
                if isinstance(step, EngineError):
                    raise step
                ids = tuple(self._encode(str(step)))
                yield Chunk(str(step), ids, logprobs=(0.0,) * len(ids) if params.logprobs else None)
            yield Chunk("", (), self._finish, logprobs=() if params.logprobs else None)
        finally:
            self.num_running -= 1


@register("scripted")
@asynccontextmanager
async def open_scripted(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Replay the lines of the text file ``config.model``, over and over; their ids are bytes of UTF-8.

    Raises:
        ConfigurationError: the file can't be read, or is empty.
    """
    try:
        lines = await asyncio.to_thread(lambda: Path(config.model).read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the script {config.model} can't be read: {error}") from error
    if not lines:
        raise ConfigurationError(f"the script {config.model} is empty")
    yield ScriptedEngine(cycle(lines), encode=lambda text: list(text.encode()))
