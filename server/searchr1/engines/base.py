"""What an engine is: one method that streams a completion for token ids. Everything else is an implementation's own."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from searchr1.loop.types import FinishReason, TokenIds


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to sample one completion.

    ``stop`` strings are matched on text and included in it. ``temperature`` 0 is greedy.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    logprobs: bool = False
    stream_interval: int = 1
    """Tokens per chunk, at least; more costs less CPU per token, for callers that need no early text."""


UNWATCHED_INTERVAL = 16
"""``stream_interval`` of completions whose text nobody watches arrive."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a completion.

    The last chunk has ``finish`` set. Its ids may overrun its text, since a stop string can end inside a token.
    """

    text: str
    token_ids: TokenIds
    finish: FinishReason | None = None
    logprobs: tuple[float, ...] | None = None
    """The sampled tokens' logprobs, one for each of ``token_ids``, when asked for."""
    num_cached_tokens: int | None = None
    """Prompt tokens served from the prefix cache; on the last chunk, where the engine tells."""


class Engine(Protocol):
    """A source of completions."""

    def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion of ``prompt_ids``.

        Closing the iterator aborts the request on the engine. ``session`` is the same for every turn of a rollout,
        so that a router can keep them on one replica; a lower ``priority`` runs first. Raises ``EngineError``.
        """
        ...


@runtime_checkable
class TakesWeights(Protocol):
    """An engine whose weights can be replaced while it runs."""

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace them by those of a checkpoint folder of the same architecture. Raises ``EngineError``."""
        ...


class ServedEngine(Engine, Protocol):
    """An engine that a gateway stands in front of."""

    async def ready(self) -> bool:
        """Whether a request would be taken now. Never raises."""
        ...
