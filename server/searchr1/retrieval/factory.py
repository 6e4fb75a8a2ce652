"""From the words of a setting to a retriever, and from the whole configuration to the search layer."""

import contextlib
import math
from collections.abc import AsyncIterator

from searchr1.errors import ConfigurationError
from searchr1.redis_client import RedisClient, open_redis
from searchr1.retrieval.base import NullObserver, Retriever, SearchObserver
from searchr1.retrieval.cache.cached import CachedRetriever, CachePolicy
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.config import BudgetConfig, SearchConfig
from searchr1.retrieval.layer import SearchLayer
from searchr1.retrieval.registry import FORMS, ProviderSpec, open_provider, parse_spec
from searchr1.retrieval.resilience.budget import Budgets, CostTable, Limit
from searchr1.retrieval.resilience.counters import MemoryCounters
from searchr1.retrieval.resilience.fallback import FallbackRetriever
from searchr1.retrieval.resilience.hedged import HedgedRetriever
from searchr1.retrieval.resilience.redis_counters import RedisCounters
from searchr1.retrieval.resilience.resilient import ResiliencePolicy, ResilientRetriever


@contextlib.asynccontextmanager
async def open_retriever(spec: str, *, timeout_s: float = math.inf) -> AsyncIterator[Retriever]:
    """Open the one retriever that ``spec`` names, bare, and close it at the end of the block.

    ``timeout_s`` bounds each search over HTTP whose deadline is further away. Raises ``ConfigurationError`` for a
    ``spec`` of no known form, and ``CorpusError`` for an index that cannot be opened.
    """
    async with open_provider(parse_spec(spec, timeout_s=timeout_s)) as retriever:
        yield retriever


def parse_chain(config: SearchConfig) -> list[ProviderSpec]:
    """The providers that ``config`` names, in their order. Raises ``ConfigurationError``."""
    words = [word.strip() for word in config.retriever.split(",") if word.strip()]
    if not words:
        raise ConfigurationError(f"no retriever is named; use one of {FORMS}")
    return [parse_spec(word, secrets=config.secrets, passage_chars=config.passage_chars) for word in words]


@contextlib.asynccontextmanager
async def open_chain(config: SearchConfig, observer: SearchObserver | None = None) -> AsyncIterator[Retriever]:
    """Open all providers of ``config``, each behind its retries and breaker, as one retriever."""
    observer = observer or NullObserver()
    async with contextlib.AsyncExitStack() as stack:
        retrievers: list[Retriever] = []
        for spec in parse_chain(config):
            retriever = await stack.enter_async_context(open_provider(spec))
            retrievers.append(retriever if spec.is_local else _guarded(retriever, spec, config, observer))
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
    async with contextlib.AsyncExitStack() as stack:
        source = await stack.enter_async_context(open_chain(config, observer))
        redis = await stack.enter_async_context(_redis(config.cache.redis_url))
        cache: CachedRetriever | None = None
        specs = parse_chain(config)
        if config.cache.enabled and not all(spec.is_local for spec in specs):
            cache = await stack.enter_async_context(
                contextlib.aclosing(_cached(source, specs, config, redis, observer))
            )
        yield SearchLayer(source, cache, _budgets(config.budget, redis, observer))


@contextlib.asynccontextmanager
async def _redis(url: str | None) -> AsyncIterator[RedisClient | None]:
    if url is None:
        yield None
        return
    client = open_redis(url)
    try:
        yield client
    finally:
        await client.aclose()


def _cached(
    source: Retriever,
    specs: list[ProviderSpec],
    config: SearchConfig,
    redis: RedisClient | None,
    observer: SearchObserver,
) -> CachedRetriever:
    wanted = config.cache
    # What a stand-in found is kept for as long as an outage may last, and not for as long as its own answers would be.
    stand_ins = {spec.kind for spec in specs} - {specs[0].kind} - set(wanted.ttls_s)
    policy = CachePolicy(
        soft_ttl_s=wanted.soft_ttl_s,
        hard_ttl_s=wanted.hard_ttl_s,
        empty_ttl_s=wanted.empty_ttl_s,
        ttls_s={**wanted.ttls_s, **dict.fromkeys(stand_ins, (wanted.empty_ttl_s / 2, wanted.empty_ttl_s))},
        max_entry_bytes=wanted.max_entry_bytes,
        refresh_s=config.timeout_s,
    )
    store = MemoryStore(wanted.memory_bytes) if redis is None else RedisStore(redis)
    return CachedRetriever(
        source,
        store,
        provider=config.retriever,
        filters={"passage_chars": str(config.passage_chars)},
        policy=policy,
        observer=observer,
    )


def _budgets(config: BudgetConfig, redis: RedisClient | None, observer: SearchObserver) -> Budgets | None:
    per_key = Limit(config.per_key, config.usd_per_key)
    per_tenant = Limit(config.per_tenant, config.usd_per_tenant)
    if per_key == per_tenant == Limit() and not config.costs_usd:
        return None
    try:
        costs = CostTable(config.costs_usd)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    store = MemoryCounters() if redis is None else RedisCounters(redis)
    return Budgets(
        store,
        costs,
        observer=observer,
        per_key=per_key,
        per_tenant=per_tenant,
        window_s=config.window_s,
    )


def _guarded(inner: Retriever, spec: ProviderSpec, config: SearchConfig, observer: SearchObserver) -> Retriever:
    wanted = config.resilience
    policy = ResiliencePolicy(
        attempts=wanted.attempts,
        breaker_failures=wanted.breaker_failures,
        breaker_reset_s=wanted.breaker_reset_s,
        max_concurrent=wanted.max_concurrent,
        rate_per_s=wanted.rate_per_s,
        # Half of the time, so that a call that hangs leaves some to try again.
        attempt_timeout_s=config.timeout_s / 2 if wanted.attempts > 1 else None,
    )
    guarded: Retriever = ResilientRetriever(inner, name=spec.kind, policy=policy, observer=observer)
    return HedgedRetriever(guarded, name=spec.kind, observer=observer) if wanted.hedge else guarded
