"""The opening of a retriever from its setting, and of the whole search layer from its configuration."""

import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from searchr1.errors import ConfigurationError
from searchr1.redis_client import RedisClient, open_redis
from searchr1.retrieval.base import NullObserver, Retriever, SearchObserver
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.config import BudgetConfig, SearchConfig
from searchr1.retrieval.layer import SearchLayer
from searchr1.retrieval.received import ShortenedRetriever
from searchr1.retrieval.registry import ProviderSpec, forms, open_provider, parse_spec
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.retrieval.resilience.counted_along import CountedAlong
from searchr1.retrieval.resilience.counters import MemoryCounters
from searchr1.retrieval.resilience.fallback import FallbackRetriever
from searchr1.retrieval.resilience.hedged import HedgedRetriever
from searchr1.retrieval.resilience.redis_counters import RedisCounters
from searchr1.retrieval.resilience.resilient import ResilientRetriever


@contextlib.asynccontextmanager
async def open_retriever(spec: str, *, timeout_s: float = math.inf) -> AsyncIterator[Retriever]:
    """Open the one retriever that ``spec`` names, bare, and close it at the end of the block.

    ``timeout_s`` bounds each search over HTTP whose deadline is further away. Raises ``ConfigurationError`` for a
    ``spec`` of no known form, and ``CorpusError`` for an index that cannot be opened.
    """
    async with open_provider(parse_spec(spec, timeout_s=timeout_s)) as retriever:
        yield retriever


def parse_chain(config: SearchConfig) -> list[ProviderSpec]:
    """Return the providers that ``config`` names, in their order. Raises ``ConfigurationError``."""
    words = [word.strip() for word in config.retriever.split(",") if word.strip()]
    if not words:
        raise ConfigurationError(f"no retriever is named; use one of {forms()}")
    return [parse_spec(word, secrets=config.secrets, passage_chars=config.passage_chars) for word in words]


@contextlib.asynccontextmanager
async def open_chain(
    specs: Sequence[ProviderSpec], config: SearchConfig, observer: SearchObserver | None = None
) -> AsyncIterator[Retriever]:
    """Open all providers of ``specs``, each behind its retries and breaker, as one retriever."""
    observer = observer or NullObserver()
    async with contextlib.AsyncExitStack() as stack:
        retrievers: list[Retriever] = []
        for spec in specs:
            opened = await stack.enter_async_context(open_provider(spec))
            retriever = ShortenedRetriever(opened, config.passage_chars)
            retrievers.append(retriever if spec.is_local else _resilient(retriever, spec, config, observer))
        yield retrievers[0] if len(retrievers) == 1 else FallbackRetriever(retrievers)


@contextlib.asynccontextmanager
async def open_search(config: SearchConfig, observer: SearchObserver | None = None) -> AsyncIterator[SearchLayer]:
    """Open the whole search layer, and close it at the end of the block.

    Searches of this machine's own indexes alone are not cached: they cost less than a cache on the network.

    Raises:
        ConfigurationError: a provider, an option, a key or the Redis URL is missing or cannot work.
        CorpusError: an index cannot be opened.
    """
    observer = observer or NullObserver()
    specs = parse_chain(config)
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_chain(specs, config, observer))
        redis = await stack.enter_async_context(_redis(config.redis_url))
        cache: CachedRetriever | None = None
        if config.cache.enabled and not all(spec.is_local for spec in specs):
            cache = await stack.enter_async_context(
                contextlib.aclosing(_cached(source, specs, config, redis, observer))
            )
        yield SearchLayer(source, cache, _budgets(config.budget, redis, observer), config.share_cache)


@contextlib.asynccontextmanager
async def _redis(url: str | None) -> AsyncIterator[RedisClient | None]:
    if url is None:
        yield None
        return
    async with contextlib.aclosing(open_redis(url)) as client:
        yield client


def _cached(
    source: Retriever,
    specs: Sequence[ProviderSpec],
    config: SearchConfig,
    redis: RedisClient | None,
    observer: SearchObserver,
) -> CachedRetriever:
    wanted = config.cache
    # What a fallback found is kept for as long as an outage may last, not for as long as its own answers would be.
    fallbacks = {spec.kind for spec in specs} - {specs[0].kind} - set(wanted.ttls_s)
    briefly = dict.fromkeys(fallbacks, (wanted.empty_ttl_s / 2, wanted.empty_ttl_s))
    return CachedRetriever(
        source,
        MemoryStore(wanted.memory_mib * 2**20) if redis is None else GuardedStore(RedisStore(redis)),
        provider=config.retriever,
        filters={"passage_chars": str(config.passage_chars)},
        config=replace(wanted, ttls_s={**wanted.ttls_s, **briefly}),
        refresh_s=config.timeout_s,
        observer=observer,
    )


def _budgets(config: BudgetConfig, redis: RedisClient | None, observer: SearchObserver) -> Budgets | None:
    if not config.counts_anything:
        return None
    counters = MemoryCounters() if redis is None else CountedAlong(RedisCounters(redis))
    return Budgets(counters, config, observer=observer)


def _resilient(inner: Retriever, spec: ProviderSpec, config: SearchConfig, observer: SearchObserver) -> Retriever:
    resilient: Retriever = ResilientRetriever(
        inner,
        name=spec.kind,
        config=config.resilience,
        observer=observer,
        # Half of the time, so that a call that hangs leaves some to try again.
        attempt_timeout_s=config.timeout_s / 2 if config.resilience.attempts > 1 else None,
    )
    return HedgedRetriever(resilient, name=spec.kind, observer=observer) if config.resilience.hedge else resilient
