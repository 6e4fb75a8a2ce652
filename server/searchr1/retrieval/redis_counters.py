"""Counters of searches and money in Redis, shared by all replicas of the gateway."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.exceptions import RedisError

from searchr1.retrieval.counters import CounterError, Quota, Refused, Spend

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
for _, key in ipairs(KEYS) do
  redis.call('HINCRBY', key, 'searches', searches)
  redis.call('HINCRBY', key, 'micros', micros)
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, window_ms) end
end
return {0, 0}
"""
"""KEYS: counters. ARGV: searches, micros, window in ms, then per key the most searches and micros, -1 for no limit."""

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
    ``rest_s``, so that an outage costs searches no time.
    """

    def __init__(
        self,
        client: Any,
        *,
        timeout_s: float = 0.05,
        rest_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._timeout_s, self._rest_s, self._clock = client, timeout_s, rest_s, clock
        self._rests_until_s = float("-inf")

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.reserve``."""
        most = [-1 if bound is None else bound for quota in quotas for bound in (quota.searches, quota.micros)]
        arguments = (spend.searches, spend.micros, round(window_s * 1000), *most)
        refused, left_ms = await self._run(_RESERVE, [quota.key for quota in quotas], arguments)
        return Refused(quotas[refused - 1].scope, left_ms / 1000) if refused else None

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        """See ``CounterStore.adjust``."""
        await self._run(_ADJUST, keys, (change.searches, change.micros))

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[int]) -> Any:
        if self._clock() < self._rests_until_s:
            raise CounterError("Redis did not answer a moment ago")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client.eval(script, len(keys), *keys, *arguments)
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._rests_until_s = self._clock() + self._rest_s
            raise CounterError(f"Redis does not answer ({type(error).__name__})") from error
