"""Keys in Redis, for all gateways that share it."""

import secrets
from collections.abc import Awaitable
from typing import Any, TypeVar

import msgspec
from redis.exceptions import RedisClusterException, RedisError

from searchr1.keyring.key_store import KeysUnreadableError, Reading, unknown_key
from searchr1.keyring.stored_key import StoredKey
from searchr1.redis_client import RedisClient, answered, reason_of

T = TypeVar("T")

KEY = "searchr1:keys"
"""A hash: a record by each id, and a mark that changes with every write."""
_MARK = ":mark"

_REPLACE = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3], ARGV[4], ARGV[5])
return 1
"""
"""KEYS: the hash. ARGV: an id, the record that is there, the new one, the mark's field, a new mark."""

_DECODER = msgspec.json.Decoder(StoredKey)


class RedisKeys:
    """A ``KeyStore`` in Redis; ``client`` is closed with it."""

    name = "the keys in Redis"

    def __init__(self, client: RedisClient) -> None:
        self._client: Any = client

    async def read(self, since: str | None = None) -> Reading | None:
        """See ``KeyStore``. A record that can't be read is left out, and told of.

        Keys that were there and are all gone count as lost, not as revoked.
        """
        mark = (await self._ask(self._client.hget(KEY, _MARK)) or b"").decode("ascii", "replace")
        if mark == since:
            return None
        if since and not mark:
            raise KeysUnreadableError(f"{self.name} are gone: it was emptied, or evicted them")
        records = await self._ask(self._client.hgetall(KEY))
        keys, faults = [], []
        for field, record in records.items():
            if field == _MARK.encode():
                mark = record.decode("ascii", "replace")
                continue
            try:
                keys.append(_decoded(field, record))
            except ValueError as error:
                faults.append(f"the key {field[:32].decode('ascii', 'replace')!r} is left out: {error}")
        return Reading(mark, keys, faults)

    async def add(self, key: StoredKey) -> None:
        """See ``KeyStore``."""
        if not await self._replace(key.id, b"", key):
            raise KeysUnreadableError(f"{self.name} have a key with the id {key.id} already: try again")

    async def revoke(self, key_id: str, *, now: int) -> StoredKey:
        """See ``KeyStore``."""
        while True:
            record = await self._ask(self._client.hget(KEY, key_id))
            if record is None or key_id == _MARK:
                raise unknown_key(self.name, key_id)
            try:
                key = _decoded(key_id.encode(), record)
            except ValueError as error:
                raise KeysUnreadableError(f"the key {key_id} in Redis can't be read: {error}") from error
            if key.revoked_at is not None:
                return key
            revoked = msgspec.structs.replace(key, revoked_at=now)
            if await self._replace(key_id, record, revoked):
                return revoked

    async def aclose(self) -> None:
        """See ``KeyStore``."""
        await self._client.aclose()

    async def _replace(self, key_id: str, old: bytes, new: StoredKey) -> bool:
        mark, record = secrets.token_hex(8), msgspec.json.encode(new)
        return bool(await self._ask(self._client.eval(_REPLACE, 1, KEY, key_id, old, record, _MARK, mark)))

    async def _ask(self, command: Awaitable[T]) -> T:
        try:
            return await answered(command)
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            raise KeysUnreadableError(f"{self.name} can't be reached: {reason_of(error)}") from error


def _decoded(field: bytes, record: bytes) -> StoredKey:
    """Return a key from its record. Raises ``ValueError``."""
    try:
        key = _DECODER.decode(record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its record is damaged, or of a newer release ({error})") from error
    if key.id.encode() != field:
        raise ValueError("its record is another key's")
    return key
