"""A provider that counts its calls, an observer that counts events, and stores that note keys or misbehave."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from searchr1.loop.types import Passage
from searchr1.retrieval.base import CacheEvent, Found, NullObserver, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.store import ByteStore, StoreError, StoreRefusedError
from searchr1.retrieval.config import CacheConfig

T = TypeVar("T")

UNAVAILABLE = SearchFailed("unavailable", "it is down", 3.0, "fake")


@dataclass
class Provider:
    """Answers with its ``outcome``, or with a passage that tells the query and the call, after ``takes_s``."""

    takes_s: float = 0.0
    outcome: SearchOutcome | None = None
    queries: list[str] = field(default_factory=list)
    cancelled: int = 0

    @property
    def calls(self) -> int:
        return len(self.queries)

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        self.queries.append(query)
        number = self.calls
        try:
            if self.takes_s > deadline_s:
                await asyncio.sleep(deadline_s)
                return SearchFailed("timeout", "fake did not answer in time", provider="fake")
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.outcome or Found(
            (Passage("id", f'"{query}"', f"call {number}", "https://a.example", 0.5),) * k, provider="fake"
        )


class Events(NullObserver):
    """Counts the cache's events."""

    def __init__(self) -> None:
        self.counts: Counter[CacheEvent] = Counter()

    def cache(self, event: CacheEvent) -> None:
        self.counts[event] += 1

    def take(self) -> Mapping[CacheEvent, int]:
        """The counts since the last call."""
        counts, self.counts = dict(self.counts), Counter()
        return counts


class Clock:
    """Unix time that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Moody:
    """A store in memory that ``hangs``, ``fails`` or ``refuses`` to write; counts what it is asked."""

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.hangs = self.fails = self.refuses = False
        self.delay_s = 0.0
        self.asked: list[str] = []

    async def get(self, key: str) -> bytes | None:
        return await self._do("get", lambda: self.inner.get(key))

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._do("set", lambda: self.inner.set(key, value, ttl_s))

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        return await self._do("claim", lambda: self.inner.claim(key, token, ttl_s))

    async def release(self, key: str, token: str) -> None:
        await self._do("release", lambda: self.inner.release(key, token))

    async def _do(self, name: str, operation: Callable[[], Awaitable[T]]) -> T:
        self.asked.append(name)
        if self.fails:
            raise StoreError("it fails")
        if self.refuses and name in ("set", "claim"):
            raise StoreRefusedError("it is full")
        if self.hangs:
            await asyncio.sleep(3600)
        await asyncio.sleep(self.delay_s)
        return await operation()


class Recorded(MemoryStore):
    """A store in memory that notes the keys that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.keys.append(key)
        return await super().get(key)


@dataclass
class Cache:
    """A cached provider and all that a test wants to see of it."""

    provider: Provider
    retriever: CachedRetriever
    events: Events
    clock: Clock

    async def search(
        self, query: str = "q", *, k: int = 1, deadline_s: float = 10.0, via: Retriever | None = None
    ) -> SearchOutcome:
        return await (via or self.retriever).search(query, k, deadline_s)

    async def found(self, query: str = "q", **options: Any) -> Found:
        outcome = await self.search(query, **options)
        assert isinstance(outcome, Found), outcome
        return outcome


def make(
    store: ByteStore | None = None,
    *,
    provider: Provider | None = None,
    clock: Clock | None = None,
    name: str = "fake",
    filters: Mapping[str, str] | None = None,
    timeout_s: float = 0.05,
    cooldown_s: float = 1.0,
    refresh_s: float = 10.0,
    **config: Any,
) -> Cache:
    """A cache in this process's memory, or on a ``store`` that other processes share, with these fields of its config.

    ``timeout_s`` and ``cooldown_s`` are those of the guard of a shared store.
    """
    provider, events, clock = provider or Provider(), Events(), clock or Clock()
    retriever = CachedRetriever(
        provider,
        MemoryStore() if store is None else GuardedStore(store, timeout_s=timeout_s, cooldown_s=cooldown_s),
        provider=name,
        config=CacheConfig(**{"soft_ttl_s": 60.0, "hard_ttl_s": 600.0, "empty_ttl_s": 30.0, **config}),
        refresh_s=refresh_s,
        observer=events,
        filters=filters,
        clock=clock,
    )
    return Cache(provider, retriever, events, clock)
