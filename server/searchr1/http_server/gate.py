"""The gate counts a server's connections, and makes room for a new one."""

import asyncio
import logging
from typing import Protocol

logger = logging.getLogger(__name__)

NUM_EXTRA = 16
"""Connections above the maximum on which probes are answered, and other requests get a 503."""
_LOG_EVERY_S = 60.0


class Evictable(Protocol):
    """A connection that can be closed at once."""

    def evict(self) -> None:
        """Close the connection without a word."""


class Gate:
    """The count of a server's connections. Idle ones give way to new ones, the longest waiting first."""

    def __init__(self, max_connections: int) -> None:
        self._max = max_connections
        self._open: set[Evictable] = set()
        self._waiting: dict[Evictable, None] = {}
        self._full = Seldom("All %d connections are in use: new ones get a 503", max_connections)

    @property
    def num_open(self) -> int:
        """Number of connections."""
        return len(self._open)

    def enter(self, connection: Evictable) -> bool:
        """Count a new connection, which waits for a request; tell whether it is within the maximum.

        Where it is above it by more than ``NUM_EXTRA``, it is evicted.
        """
        if len(self._open) >= self._max and self._waiting:
            self._evict(next(iter(self._waiting)))
        is_extra = len(self._open) >= self._max
        self._open.add(connection)
        self._waiting[connection] = None
        if is_extra:
            self._full.tell()
            if len(self._open) > self._max + NUM_EXTRA:
                self._evict(connection)
        return not is_extra

    def leave(self, connection: Evictable) -> None:
        """Count a connection no more."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def wait(self, connection: Evictable) -> None:
        """Note that it waits for its next request, or for its end."""
        self._waiting[connection] = None

    def work(self, connection: Evictable) -> None:
        """Note that a connection's request is being served."""
        self._waiting.pop(connection, None)

    def _evict(self, connection: Evictable) -> None:
        self.leave(connection)
        connection.evict()


class Seldom:
    """A log of a warning at most once a minute, with the number of times that it stands for."""

    def __init__(self, message: str, *values: object) -> None:
        self._message, self._values = message, values
        self._num_untold = 0
        self._next_s = 0.0

    def tell(self) -> None:
        """Log, or count for the next line."""
        self._num_untold += 1
        if (now := asyncio.get_running_loop().time()) >= self._next_s:
            logger.warning(f"{self._message} (%d times since the last such line).", *self._values, self._num_untold)
            self._num_untold, self._next_s = 0, now + _LOG_EVERY_S
