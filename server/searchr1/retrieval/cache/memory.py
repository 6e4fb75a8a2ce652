"""The search cache's entries in this process's memory."""

import time
from collections import OrderedDict
from collections.abc import Callable

from searchr1.retrieval.cache.store import StoreRefusedError

_OVERHEAD_BYTES = 300
"""Bytes of the objects that hold a key and its value, roughly."""


class MemoryStore:
    """A ``ByteStore`` of at most ``max_bytes``; the least recently used values go first."""

    def __init__(self, max_bytes: int = 64 * 1024 * 1024, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes, self._clock = max_bytes, clock
        self._values: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self.size_bytes = 0

    async def get(self, key: str) -> bytes | None:
        """See ``ByteStore.get``."""
        return self._get(key)

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """See ``ByteStore.set``. Raises ``StoreRefusedError`` for a value that does not fit even alone."""
        self._set(key, value, ttl_s)

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        """See ``ByteStore.claim``."""
        holder = self._get(key)
        if holder is not None:
            return holder.decode()
        self._set(key, token.encode(), ttl_s)
        return token

    async def release(self, key: str, token: str) -> None:
        """See ``ByteStore.release``."""
        if self._get(key) == token.encode():
            self._drop(key)

    def _get(self, key: str) -> bytes | None:
        kept = self._values.get(key)
        if kept is None:
            return None
        value, expires_s = kept
        if self._clock() >= expires_s:
            self._drop(key)
            return None
        self._values.move_to_end(key)
        return value

    def _set(self, key: str, value: bytes, ttl_s: float) -> None:
        size = _size(key, value)
        if size > self._max_bytes:
            raise StoreRefusedError(f"a value of {len(value)} bytes does not fit into {self._max_bytes} bytes")
        self._drop(key)
        while self.size_bytes + size > self._max_bytes:
            self._drop(next(iter(self._values)))
        self._values[key] = (value, self._clock() + ttl_s)
        self.size_bytes += size

    def _drop(self, key: str) -> None:
        kept = self._values.pop(key, None)
        if kept is not None:
            self.size_bytes -= _size(key, kept[0])


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + _OVERHEAD_BYTES
