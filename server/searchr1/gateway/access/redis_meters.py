"""Meters of API keys in Redis, shared by all gateways. Each operation is one script, on keys of one slot."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.exceptions import RedisClusterException, RedisError

from searchr1.gateway.access.meters import LEASE_S, MINUTE_S, TOKENS_WINDOW_S, Metered, MeterError, Standing
from searchr1.identity import KeyLimits
from searchr1.redis_client import Outages, RedisClient, answered, reason_of

logger = logging.getLogger(__name__)

_REQUEST = """
local time = redis.call('TIME')
local now, minute = time[1] * 1000000 + time[2], tonumber(ARGV[4])
local most, most_tokens, owed = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local told = tonumber(redis.call('GET', KEYS[2])) or 0
local spent, end_ms = told + owed, told > 0 and redis.call('PTTL', KEYS[2]) or 0
local refused, retry, full, interval = 0, 0, 0, 0
if most > 0 then
  interval = minute / most
  full = math.max(0, (tonumber(redis.call('GET', KEYS[1])) or now) - now)
  if full + interval > minute + 1 then refused, retry = 1, full + interval - minute end
end
if most_tokens > 0 and spent >= most_tokens then
  refused, retry = 2, (end_ms > 0 and end_ms or tonumber(ARGV[5])) * 1000
end
if most > 0 and refused == 0 then
  full = full + interval
  redis.call('SET', KEYS[1], string.format('%.0f', now + full), 'PX', math.ceil(full / 1000) + 1000)
end
local left = most > 0 and math.floor((minute - full + 1) / interval) or 0
return {refused, math.ceil(retry), left, math.ceil(full), spent, end_ms}
"""
"""KEYS: when requests are full again, in microseconds; tokens. ARGV: most requests and tokens (0: no limit), owed
tokens, a minute in microseconds, the window of tokens in ms."""

_SPEND = """
redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
"""KEYS: tokens. ARGV: more of them, the window in ms."""

_BEGIN = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
if tonumber(ARGV[1]) >= 0 and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], now_ms + ARGV[2], ARGV[i]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
"""KEYS: leases of runs by their end. ARGV: most runs, -1 for any number; a lease's length in ms; leases."""

_REFUSED: Final[tuple[Metered | None, ...]] = (None, "requests_per_minute", "tokens_per_day")


class RedisMeters:
    """The meters of all keys, by their ids; ``client`` stays the caller's to close.

    Every method raises ``MeterError`` where Redis does not answer within ``timeout_s``. It is then not asked for
    ``cooldown_s``, so that an outage costs requests no time.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        timeout_s: float = 0.25,
        cooldown_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client: Any = client
        self._timeout_s, self._cooldown_s, self._clock = timeout_s, cooldown_s, clock
        self._cooldown_ends_s = float("-inf")
        self._outages = Outages("The count of keys' limits over all replicas", logger)

    async def request(self, key_id: str, limits: KeyLimits, *, owed_tokens: int = 0) -> Standing:
        """Count a request, unless a limit of requests or tokens refuses it.

        ``owed_tokens`` were spent, and are still to be told by ``spend``.
        """
        most = (limits.requests_per_minute or 0, limits.tokens_per_day or 0)
        lengths = (round(MINUTE_S * 1_000_000), round(TOKENS_WINDOW_S * 1000))
        keys = (_key(key_id, "requests"), _key(key_id, "tokens"))
        refused, retry_us, left, full_us, spent, end_ms = await self._run(_REQUEST, keys, *most, owed_tokens, *lengths)
        return Standing(_REFUSED[refused], retry_us / 1e6, left, full_us / 1e6, spent, max(0, end_ms) / 1000)

    async def spend(self, key_id: str, tokens: int) -> None:
        """Add tokens to the window, which begins with them where none is open."""
        await self._run(_SPEND, (_key(key_id, "tokens"),), tokens, round(TOKENS_WINDOW_S * 1000))

    async def begin_run(self, key_id: str, lease: str, most: int) -> bool:
        """Begin the lease of a run; return False where the key has ``most`` runs already."""
        return bool(await self._run(_BEGIN, (_key(key_id, "runs"),), most, round(LEASE_S * 1000), lease))

    async def renew_runs(self, key_id: str, leases: Sequence[str]) -> None:
        """Have the runs of this gateway go on counting, those that were forgotten too."""
        await self._run(_BEGIN, (_key(key_id, "runs"),), -1, round(LEASE_S * 1000), *leases)

    async def end_runs(self, key_id: str, leases: Sequence[str]) -> None:
        """End leases; one that there is not is passed over."""
        await self._ask(self._client.zrem, _key(key_id, "runs"), *leases)

    async def _run(self, script: str, keys: Sequence[str], *arguments: object) -> Any:
        return await self._ask(self._client.eval, script, len(keys), *keys, *arguments)

    async def _ask(self, command: Callable[..., Any], *arguments: object) -> Any:
        if self._clock() < self._cooldown_ends_s:
            raise MeterError("Redis did not answer a moment ago")
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await answered(command(*arguments))
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            self._cooldown_ends_s = self._clock() + self._cooldown_s
            self._outages.failed("count", reason_of(error))
            raise MeterError(f"Redis does not answer ({type(error).__name__})") from error
        self._outages.worked("count")
        return answer


def _key(key_id: str, what: str) -> str:
    return f"searchr1:limit:{{{key_id}}}:{what}"
