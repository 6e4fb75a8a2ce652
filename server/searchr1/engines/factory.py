"""Opening an engine: by the name of its kind, and by one description of what it serves and may use.

A kind is declared by ``@register`` on its opener, in a module or package directly under ``searchr1.engines``. All of
these are imported to find a kind, so they import what is heavy (torch, vLLM) inside the opener.
"""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from searchr1.engines.base import ServedEngine
from searchr1.errors import ConfigurationError
from searchr1.registry import Registry

SEVERAL: Final = ("dns+http://", "k8s://")
"""How an address begins that stands for several servers."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine to open. Each kind reads the fields that mean something to it; None leaves a choice to the engine."""

    kind: str
    """``vllm``, ``vllm-http``, ``vllm-pool``, ``transformers``, or another that is registered."""
    model: str
    """A folder or a hub name; of a server, the name that it serves."""
    urls: tuple[str, ...] = field(default=(), repr=False)
    """Addresses of servers, as ``ServerAddress`` or a pool takes them; empty for an engine in this process."""
    roll_weights: bool = False
    """Give new weights to the servers one after the other, so that runs go on, and not to all at once."""
    api_key: str | None = field(default=None, repr=False)
    vocab_size: int | None = None
    """No token id of a server may reach it."""
    silence_s: float = 120.0
    """Seconds without any output, or another sign of work, after which an engine that has work counts as stalled."""
    priority_scheduling: bool = False
    """Run completions by their ``priority``."""
    device: str | None = None
    """``cpu``, ``cuda``, or one GPU of several: ``cuda:1``."""
    dtype: str = "auto"
    """auto, bfloat16, float16 or float32."""
    max_model_len: int | None = None
    """Longest prompt and completion together, in tokens."""
    max_num_seqs: int = 64
    """Completions that run at once; more wait."""
    kv_cache_gib: float | None = None
    gpu_memory_share: float | None = None
    """Share of a GPU's memory for weights and KV cache together."""
    enforce_eager: bool = False
    """Skip compilation."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the engine's own library, by their names there."""

    def place(self) -> str:
        """Return where the model lies: a folder past all links, or a hub name.

        Training moves the link of its last checkpoint; an engine that starts, or starts again, would read two of them.
        """
        return str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model

    def url(self) -> str:
        """Return the address of the one server. Raises ``ConfigurationError`` where not exactly one is given."""
        if len(self.urls) != 1:
            raise ConfigurationError(f"the engine '{self.kind}' needs the address of one server, not {len(self.urls)}")
        return self.urls[0]

    def require_no_url(self) -> None:
        """Raise ``ConfigurationError`` where an address is given to an engine that runs in this process."""
        if self.urls:
            raise ConfigurationError(f"the engine '{self.kind}' runs in this process and has no address: leave it out")

    def require_no_engine_args(self) -> None:
        """Raise ``ConfigurationError`` where arguments are given to an engine that takes none."""
        if self.engine_args:
            raise ConfigurationError(
                f"arguments are for a vLLM that starts here, and the engine '{self.kind}' is none: leave them out"
            )


def split_urls(written: str) -> tuple[str, ...]:
    """Return the addresses in a comma-separated list. A comma in a password is none between addresses."""
    parts = re.split(r"\s*,\s*(?=[a-z][a-z0-9+]*://|[\w.-]+(?::\d+)?(?:[/,]|$))", written.strip().rstrip(", "))
    return tuple(dict.fromkeys(parts))


Opener = Callable[[EngineConfig], AbstractAsyncContextManager[ServedEngine]]

OPENERS: Registry[Opener] = Registry("engine", "searchr1.engines.*")


def register(kind: str) -> Callable[[Opener], Opener]:
    """Decorator: make an opener known as ``kind``. Raises ``ValueError`` where another one has that name."""
    return OPENERS.register(kind)


@asynccontextmanager
async def open_engine(config: EngineConfig) -> AsyncIterator[ServedEngine]:
    """Open the engine that ``config`` describes, and close it at the end of the block.

    A server need not be up yet, save where its kind has to ask it something first.

    Raises:
        ConfigurationError: there is no such kind, or its model, its libraries or its settings can't work.
        EngineUnavailableError: it does not start.
    """
    async with OPENERS.named(config.kind)(config) as engine:
        yield engine
