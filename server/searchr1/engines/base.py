"""The contract of an engine: one method that streams a completion for token ids."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol, runtime_checkable

import msgspec

from searchr1.breaker import BreakerState
from searchr1.loop.types import FinishReason, TokenIds


@dataclass(frozen=True, slots=True)
class Shaping:
    """Changes to the probabilities before a token is drawn, with vLLM's meanings; the defaults change nothing.

    ``top_k`` keeps the likeliest tokens alone (0: all), ``min_p`` those that are at least this part as likely as the
    likeliest one. Penalties lower tokens that came already: ``repetition_penalty`` (1 is none) those of prompt and
    completion, ``frequency_penalty`` (by their number) and ``presence_penalty`` those of the completion.
    """

    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


UNSHAPED = Shaping()
"""Probabilities as the model gives them: what checkpoints are trained with."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Bounds, stops and randomness of one completion.

    ``stop`` strings are matched on text and included in it. ``temperature`` 0 is greedy.
    """

    max_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    shaping: Shaping = UNSHAPED
    logprobs: bool = False
    stream_interval: int = 1
    """Tokens per chunk, at least; more costs less CPU per token, for callers that need no early text."""
    cache_salt: str | None = None
    """Prefixes are shared with completions of the same salt alone, where the engine keeps any."""


UNWATCHED_INTERVAL = 16
"""``stream_interval`` of completions whose text nobody watches arrive."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """A piece of a completion. Two are made for every token: a frozen dataclass takes eight times as long to make.

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
    """A source of completions.

    At a minimum, an engine does this::

        class EchoEngine:
            async def generate(self, prompt_ids, params, *, session, priority=0):
                yield Chunk("<answer>", (27, 9217, 29))
                yield Chunk(" Bamako </answer>", (77877, 690, 9217, 29), finish="stop")

    and it is asked like this::

        params = SamplingParams(max_tokens=500, stop=("</search>", "</answer>"))
        async with aclosing(engine.generate(prompt_ids, params, session="run_1")) as chunks:
            async for chunk in chunks:
                print(chunk.text, end="")

    ``searchr1.engines.scripted`` is a fake for tests; ``searchr1.engines.factory`` opens the others by name.
    """

    def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion of ``prompt_ids``, which end with a whole character.

        After half a character vLLM's detokenizer would repeat the prompt's text as the completion's.

        Closing the iterator aborts the request on the engine. ``session`` is the same for every turn of a rollout,
        so that a router can keep them on one replica; a lower ``priority`` runs first. Raises ``EngineError``.
        """
        ...


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """An engine's word on how it is."""

    ok: bool
    """Whether a request would be taken and answered now."""
    reason: str = ""
    """One of ``HEALTH_REASONS`` where it is not ok; it holds no address and may be shown to anyone."""
    detail: str = ""
    """What happened, for the log alone: it may hold addresses."""


HEALTH_REASONS: Final = frozenset(
    {
        "starting",  # it has not been up yet
        "unreachable",  # nothing answers at its address
        "unhealthy",  # it answers, and says that it can't serve, or says nothing that can be read
        "refused_key",  # it wants another key
        "model_not_served",
        "context_too_short",  # what it serves takes fewer tokens than the configuration may send
        "stalled",  # it is there, has work, and does not move
        "restarting",  # it died and is being brought back
        "stopped",
    }
)


SURVIVABLE_REASONS: Final = frozenset({"context_too_short"})
"""Those for which some requests are still answered: they are told, but keep nothing out."""


class ServedEngine(Engine, Protocol):
    """An engine that a gateway stands in front of."""

    async def health(self) -> EngineHealth:
        """Return whether a request would be served now, and if not, why. Never raises.

        It may be called often: what is dear to find out is kept for a moment.
        """
        ...


@runtime_checkable
class TellsMetrics(Protocol):
    """An engine that tells its own metrics."""

    async def metrics_text(self) -> str:
        """Return the metrics in Prometheus' text format. Raises ``EngineError``."""
        ...


class TakesWeights(ABC):
    """An engine that its owner may give new weights while it runs.

    A class says so by inheriting. A single vLLM over HTTP does not, though it can replace its weights: others may use
    the same server.
    """

    @abstractmethod
    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace the weights by those of a checkpoint folder of the same architecture. Raises ``EngineError``."""
        ...


class GivesMemory(TakesWeights):
    """An engine that can leave its GPU to its owner while nothing is asked of it."""

    @abstractmethod
    async def sleep(self) -> None:
        """Give up the memory of weights and KV cache until ``take_weights``, which wakes it. Raises ``EngineError``.

        What runs is aborted, and what is asked meanwhile refused.
        """
        ...


ReplicaState = Literal["ready", "unwell", "draining", "gone"]
REPLICA_STATES: Final[tuple[ReplicaState, ...]] = ("ready", "unwell", "draining", "gone")


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One of an engine's replicas as others see it: what a scheduler needs to place runs, and what metrics tell."""

    name: str
    state: ReplicaState
    capacity_tokens: int | None
    """Tokens that its KV cache holds; None where it does not tell."""
    used_tokens: int | None
    """Tokens of running completions in it, as it last told."""
    num_in_flight: int
    """Completions of ours that are open on it."""
    num_waiting: int
    """Requests in its queue, as it last told; others' too."""
    block_tokens: int = 1
    """Tokens of a block of its KV cache, of which each request holds whole ones."""
    breaker: BreakerState = "closed"
    """Whether completions are kept from it because they failed there, whatever it says of its health."""

    @property
    def healthy(self) -> bool:
        """Whether a session may be placed on it now."""
        return self.state == "ready"


@runtime_checkable
class Replicated(Protocol):
    """An engine of several replicas, which keeps each session on one of them.

    A scheduler reads ``replicas`` and calls ``place`` before a session's completion; without it, the engine chooses.
    """

    @property
    def replicas(self) -> tuple[ReplicaView, ...]:
        """The replicas as they are now."""
        ...

    @property
    def num_by_state(self) -> Mapping[ReplicaState, int]:
        """Number of replicas by state; those that are gone since the start."""
        ...

    @property
    def num_failovers(self) -> int:
        """Times that a session went to another replica than the one before."""
        ...

    def place(self, session: str, replica_name: str) -> None:
        """Put a session on a replica, from its next completion on, for as long as that replica is ready.

        A name that is not among ``replicas`` is ignored: the engine chooses then.
        """
        ...

    def replica_of(self, session: str) -> str | None:
        """Return the name of the replica that a session is on; None for one that has not been on any for long."""
        ...


@runtime_checkable
class TakesReplicas(Replicated, Protocol):
    """An engine whose owner adds and takes out replicas while it runs, by their addresses."""

    def add(self, url: str) -> None:
        """Take one more server in, or one again that was drained. Raises ``ConfigurationError`` for no address."""
        ...

    def begin_drain(self, url: str, *, within_s: float, leaves: bool = False) -> None:
        """Give a server no more sessions; its completions end, or are moved to others after ``within_s`` seconds.

        One that ``leaves`` is forgotten once nothing runs on it. Raises ``KeyError`` for an unknown server.
        """
        ...
