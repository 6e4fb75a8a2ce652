"""Single flight across processes: the one that holds a search's lock in the shared store calls the provider.

The others poll until the holder has kept what it found, or has left word that it failed. A holder that dies loses the
lock after a few seconds, and the next process calls. A failure is left under the holder's token, so that it reaches
those who waited for that very call, and nobody else.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

from searchr1.retrieval.base import Found, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.store import Failure, StoreError, pack, unpack
from searchr1.retrieval.deadline import Deadline

_LOCK_TTL_S = 5.0
"""Seconds for which identical searches of other processes wait for a holder that may have died."""
_FAILURE_TTL_S = 2.0
_POLL_FIRST_S, _POLL_MAX_S, _POLL_GROWTH = 0.01, 0.1, 1.5


@dataclass(frozen=True, slots=True)
class LockResult:
    """Result of trying for the lock: another search's ``outcome``, or permission to call the provider.

    ``publishes`` is False where the store failed: what the provider finds is then not written to it.
    """

    outcome: SearchOutcome | None = None
    publishes: bool = True


class ProcessLock:
    """The locks of all searches in ``store``. ``usable`` reads an entry, and gives None for one not to be served."""

    def __init__(
        self,
        store: GuardedStore,
        usable: Callable[[bytes | None], Found | None],
        *,
        max_entry_bytes: int,
        observer: SearchObserver,
    ) -> None:
        self._store, self._usable, self._max_entry_bytes, self._observer = store, usable, max_entry_bytes, observer

    async def take(self, key: str, token: str, timeout_s: float) -> LockResult:
        """Become, as ``token``, the one process that searches ``key``, or wait for the one that does.

        After ``timeout_s`` seconds the wait is over, and the provider may be called.
        """
        deadline = Deadline(timeout_s)
        pause_s, awaited = _POLL_FIRST_S, ""
        try:
            while True:
                holder = await self._store.claim(_lock_key(key), token, _LOCK_TTL_S)
                if holder != awaited and (holder == token or awaited):
                    outcome = await self._left_behind_by(awaited, key)
                    if outcome is not None or holder == token:
                        return LockResult(outcome)
                awaited = holder
                if deadline.left_s() <= 0:
                    return LockResult()
                await asyncio.sleep(min(pause_s * random.uniform(0.5, 1.0), max(deadline.left_s(), 0.0)))
                pause_s = min(pause_s * _POLL_GROWTH, _POLL_MAX_S)
        except StoreError:
            self._observer.cache("bypass")
            return LockResult(publishes=False)

    async def publish_failure(self, key: str, token: str, failure: SearchFailed) -> None:
        """Leave word, for those who wait for ``token``, that its search failed."""
        record = Failure(failure.kind, failure.message, failure.retry_after_s, failure.provider)
        data = pack(record, max_bytes=self._max_entry_bytes, compress_over_bytes=self._max_entry_bytes)
        if data is None:
            return
        try:
            await self._store.set(_failure_key(key, token), data, _FAILURE_TTL_S)
        except StoreError:
            self._observer.cache("bypass")

    async def release(self, key: str, token: str) -> None:
        """Give the lock up if ``token`` holds it. Where the store fails, it expires."""
        with contextlib.suppress(StoreError):
            await self._store.release(_lock_key(key), token)

    async def _left_behind_by(self, holder: str, key: str) -> SearchOutcome | None:
        """Return what the search that held the lock as ``holder``, or any before it, found; or how that one failed."""
        kept = self._usable(await self._store.get_now(key))
        if kept is not None or not holder:
            return kept
        data = await self._store.get_now(_failure_key(key, holder))
        failure = None if data is None else unpack(data, Failure, max_bytes=self._max_entry_bytes)
        if failure is None:
            return None
        return SearchFailed(failure.kind, failure.message, failure.retry_after_s, failure.provider)


def _lock_key(key: str) -> str:
    return f"{key}:lock"


def _failure_key(key: str, token: str) -> str:
    return f"{key}:failed:{token}"
