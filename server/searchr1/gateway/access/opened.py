"""All that decides on callers, opened together: keys, their limits and their usage."""

from contextlib import AsyncExitStack
from typing import Self

from searchr1.gateway.access.api_keys import ApiKeys
from searchr1.gateway.access.key_limits import KeyLimiter
from searchr1.gateway.access.redis_meters import RedisMeters
from searchr1.gateway.access.stored_keys import StoredKeys
from searchr1.gateway.access.usage_counts import UsageCounts
from searchr1.gateway.metrics import Metrics
from searchr1.identity import Caller
from searchr1.keyring.opening import open_keys
from searchr1.keyring.usage import MemoryUsage, RedisUsage
from searchr1.redis_client import open_redis
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.settings import Settings


class OpenedAccess:
    """The keys, limits and usage of one gateway. Use it as a context manager while it serves.

    Entering raises ``KeysUnreadableError`` where the stored keys can't be read.
    """

    def __init__(self, settings: Settings, metrics: Metrics, budgets: Budgets | None) -> None:
        place = settings.key_place
        redis_url = settings.redis_url.get_secret_value() if settings.redis_url and settings.asks_for_keys else None
        self._redis = None if redis_url is None else open_redis(redis_url)
        self._stored = None if place is None else StoredKeys(open_keys(place), metrics)
        self._resources = AsyncExitStack()
        self.keys = ApiKeys(settings, self._stored)
        self.limits = KeyLimiter(
            shared=None if self._redis is None else RedisMeters(self._redis),
            budgets=budgets,
            on_outage=metrics.key_limit_errors.inc,
        )
        self.usage = UsageCounts(MemoryUsage() if self._redis is None else RedisUsage(self._redis))

    def count_run(self, caller: Caller, *, tokens_in: int, tokens_out: int, searches: int) -> None:
        """Count a run that has ended, in the key's usage and against its limit of tokens."""
        self.usage.ran(caller, tokens_in=tokens_in, tokens_out=tokens_out, searches=searches)
        self.limits.spend(caller, tokens_in + tokens_out)

    def count_rewriting(self, caller: Caller, *, tokens_in: int, tokens_out: int) -> None:
        """Count what rewriting a question took, in the key's usage and against its limit of tokens."""
        self.usage.rewrote(caller, tokens_in=tokens_in, tokens_out=tokens_out)
        self.limits.spend(caller, tokens_in + tokens_out)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._redis is not None:
                stack.push_async_callback(self._redis.aclose)
            if self._stored is not None:
                await stack.enter_async_context(self._stored)
            await stack.enter_async_context(self.limits)
            await stack.enter_async_context(self.usage)
            self._resources = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._resources.aclose()
