"""Counters of searches and money in Redis, shared by all replicas of the gateway."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from searchr1.redis_client import Outages, reason_of
from searchr1.retrieval.resilience.counters import CounterError, Quota, Refused, Spend

logger = logging.getLogger(__name__)

_RESERVE = """
local searches, micros, window_ms = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
for i, key in ipairs(KEYS) do
  local spent = redis.call('HMGET', key, 'searches', 'micros')
  local most_searches, most_micros = tonumber(ARGV[2 + 2 * i]), tonumber(ARGV[3 + 2 * i])
  if (most_searches >= 0 and (tonumber(spent[1]) or 0) + searches > most_searches)
    or (most_micros >= 0 and (tonumber(spent[2]) or 0) + micros > most_micros) then
    local left_ms = redis.call('PTTL', key)
    return {i, left_ms >= 0 and left_ms or window_ms}
  end
end
if ARGV[4 + 2 * #KEYS] == 'look' then return {0, 0} end
for _, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, 'searches', searches)
  redis.call('HINCRBY', key, 'micros', micros)
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window_ms) end
end
return {0, 0}
"""
"""KEYS: counters. ARGV: searches, micros, window in ms, then per key the most searches and micros, -1 for no limit,
then 'look' where nothing is to be added."""

_ADJUST = """
for _, key in ipairs(KEYS) do
  if redis.call('EXISTS', key) == 1 then
    for i, field in ipairs({'searches', 'micros'}) do
      if redis.call('HINCRBY', key, field, ARGV[i]) < 0 then redis.call('HSET', key, field, 0) end
    end
  end
end
return 0
"""
"""KEYS: counters. ARGV: change of searches, of micros."""


class RedisCounters:
    """A ``CounterStore`` in Redis, atomic by one script per operation.

    ``client`` is a ``redis.asyncio`` client (plain, Sentinel's or Cluster's) and stays the caller's to close. The keys
    of one operation must share a slot. Redis gets ``timeout_s`` to answer; after it did not, it is not asked for
    ``cooldown_s``, so that an outage costs searches no time. A late operation may go on unseen for ``late_timeout_s``,
    so that a connection that takes longer than ``timeout_s`` to be made is there for the next one. A reservation that
    is made late is taken back.
    """

    def __init__(
        self,
        client: Any,
        *,
        timeout_s: float = 0.05,
        cooldown_s: float = 1.0,
        late_timeout_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._clock = client, clock
        self._timeout_s, self._cooldown_s, self._late_timeout_s = timeout_s, cooldown_s, late_timeout_s
        self._cooldown_ends_s = float("-inf")
        self._running: set[asyncio.Task[Any]] = set()
        self._outages = Outages("The count of searches over all replicas", logger)

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.reserve``."""
        keys, arguments = _reservation(quotas, spend, window_s)
        operation = self._start(_RESERVE, keys, (*arguments, "add"))
        try:
            refused, left_ms = await self._wait(operation)
        except CounterError:
            operation.add_done_callback(lambda late: self._take_back(late, keys, spend))
            raise
        return Refused(quotas[refused - 1].scope, left_ms / 1000) if refused else None

    async def refusal(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.refusal``."""
        keys, arguments = _reservation(quotas, spend, window_s)
        refused, left_ms = await self._wait(self._start(_RESERVE, keys, (*arguments, "look")))
        return Refused(quotas[refused - 1].scope, left_ms / 1000) if refused else None

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        """See ``CounterStore.adjust``."""
        await self._wait(self._start(_ADJUST, keys, (change.searches, change.micros)))

    def _start(self, script: str, keys: Sequence[str], arguments: Sequence[int | str]) -> asyncio.Task[Any]:
        if self._clock() < self._cooldown_ends_s:
            raise CounterError("Redis did not answer a moment ago")
        return self._send(script, keys, arguments)

    def _send(self, script: str, keys: Sequence[str], arguments: Sequence[int | str]) -> asyncio.Task[Any]:
        async def run() -> Any:
            async with asyncio.timeout(self._late_timeout_s):
                return await self._client.eval(script, len(keys), *keys, *arguments)

        operation = asyncio.create_task(run())
        self._running.add(operation)
        operation.add_done_callback(self._forget)
        return operation

    async def _wait(self, operation: asyncio.Task[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await asyncio.shield(operation)
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            self._cooldown_ends_s = self._clock() + self._cooldown_s
            self._outages.failed("count", reason_of(error))
            raise CounterError(f"Redis does not answer ({type(error).__name__})") from error
        self._outages.worked("count")
        return answer

    def _take_back(self, late: asyncio.Task[Any], keys: Sequence[str], spend: Spend) -> None:
        if not late.cancelled() and late.exception() is None and late.result()[0] == 0:
            self._send(_ADJUST, keys, (-spend.searches, -spend.micros))

    def _forget(self, operation: asyncio.Task[Any]) -> None:
        self._running.discard(operation)
        if not operation.cancelled():
            operation.exception()  # so that asyncio does not report what nobody waits for any more


def _reservation(quotas: Sequence[Quota], spend: Spend, window_s: float) -> tuple[list[str], list[int]]:
    """Return the keys of ``quotas``, and what the script is told of them."""
    most = [-1 if bound is None else bound for quota in quotas for bound in (quota.searches, quota.micros)]
    return [quota.key for quota in quotas], [spend.searches, spend.micros, round(window_s * 1000), *most]
