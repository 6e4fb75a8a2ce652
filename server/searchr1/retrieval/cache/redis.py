"""The search cache's entries in Redis."""

from collections.abc import Awaitable
from typing import TypeVar, cast

from redis.exceptions import AuthenticationError, RedisClusterException, RedisError, ResponseError

from searchr1.redis_client import RedisClient, answered, reason_of
from searchr1.retrieval.cache.store import StoreError, StoreRefusedError

T = TypeVar("T")

_CLAIM = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return ARGV[1] end
return redis.call('GET', KEYS[1])
"""
"""KEYS: the key. ARGV: token, ms."""

_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
"""KEYS: the key. ARGV: token."""


class RedisStore:
    """A ``ByteStore`` in Redis. ``client`` comes from ``open_redis`` and stays the caller's to close."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def get(self, key: str) -> bytes | None:
        """See ``ByteStore.get``."""
        return cast(bytes | None, await _answer(self._client.get(key)))

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """See ``ByteStore.set``."""
        await _answer(self._client.set(key, value, px=_ms(ttl_s)))

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        """See ``ByteStore.claim``."""
        holder = await _answer(cast(Awaitable[bytes], self._client.eval(_CLAIM, 1, key, token, str(_ms(ttl_s)))))
        return holder.decode("utf-8", "replace")

    async def release(self, key: str, token: str) -> None:
        """See ``ByteStore.release``."""
        await _answer(cast(Awaitable[int], self._client.eval(_RELEASE, 1, key, token)))


async def _answer(command: Awaitable[T]) -> T:
    try:
        return await answered(command)
    except AuthenticationError as error:
        raise StoreError(f"Redis refuses the credentials ({reason_of(error)})") from error
    except ResponseError as error:
        raise StoreRefusedError(f"Redis refuses ({reason_of(error)})") from error
    except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
        raise StoreError(f"Redis does not answer ({reason_of(error)})") from error


def _ms(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
