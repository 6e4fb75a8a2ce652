"""Searches kept and shared: a repeated search costs nothing, and identical ones at the same time cost one call.

A search reads its entry. A fresh entry is a hit. Past its soft TTL it is served all the same, as stale, while one
refresh runs; past its hard TTL it is gone. Without an entry one search calls the provider, and the identical ones, in
this process and in those that share the store, wait for its answer. Failures are not kept: they reach those who wait
for that very call, and nobody else. A provider that fails behind a stale entry changes nothing for who searches.

A shared store that does not answer is skipped: the search then calls the provider, as one with the identical ones in
this process.
"""

import asyncio
import contextlib
import hashlib
import json
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.process_lock import LockResult, ProcessLock
from searchr1.retrieval.cache.single_flight import SharedCall, SingleFlight
from searchr1.retrieval.cache.store import ByteStore, Entry, StoreError, pack, unpack
from searchr1.retrieval.config import CacheConfig
from searchr1.retrieval.deadline import Deadline

_VERSION = 1
_COMPRESS_OVER_BYTES = 1024
_MAX_REFRESHES = 64
_SPARE_S = 0.02
_WORTH_A_CALL_S = 0.1


@dataclass(frozen=True, slots=True)
class _Search:
    key: str
    query: str
    k: int
    deadline: Deadline


class CachedRetriever:
    """A ``Retriever`` that keeps in ``store`` what ``inner`` finds. Make one per event loop.

    A ``GuardedStore`` is shared with other processes: a lock in it makes one call of identical searches in all of them.
    Any other store belongs to this process, and is trusted to answer at once.

    ``provider`` and ``filters`` name everything that decides what ``inner`` finds. Searches that differ in case, width
    or white space only are the same. ``refresh_s`` is the deadline of a refresh, and the cooldown of an entry after one
    failed. ``clock`` gives seconds of Unix time. ``store`` stays the caller's to close.
    """

    def __init__(
        self,
        inner: Retriever,
        store: ByteStore | GuardedStore,
        *,
        provider: str,
        config: CacheConfig,
        observer: SearchObserver,
        refresh_s: float = 10.0,
        filters: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inner, self._config, self._observer, self._clock = inner, config, observer, clock
        self._identity = (provider, sorted((filters or {}).items()))
        self._store, self._refresh_s = store, refresh_s
        self._lock = (
            ProcessLock(store, self._usable, max_entry_bytes=config.max_entry_bytes, observer=observer)
            if isinstance(store, GuardedStore)
            else None
        )
        self._single_flight: SingleFlight[SearchOutcome] = SingleFlight()
        self._refreshes: dict[str, asyncio.Task[None]] = {}

    def view(self, scope: str = "", only: bool = False) -> Retriever:
        """Return the cache as ``scope`` sees it: its entries are its own. With ``only``, ``inner`` is never called."""
        return _View(self, scope, only)

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        return await self.search_as("", False, query, k, deadline_s)

    async def search_as(self, scope: str, only: bool, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Do what ``view(scope, only).search(query, k, deadline_s)`` does."""
        search = _Search(self._key(scope, query, k), query, k, Deadline(deadline_s))
        store_works = True
        try:
            kept = self._usable(await self._store.get(search.key))
        except StoreError:
            self._observer.cache("bypass")
            kept, store_works = None, False
        if kept is not None:
            self._observer.cache("stale" if kept.cache == "stale" else "hit")
            if kept.cache == "stale" and not only:
                self._start_refresh(search)
            return kept
        if only:
            self._observer.cache("not_cached")
            return SearchFailed("not_cached", "this search is not in the cache, and nothing else was to be asked")
        return await self._fetch(search, store_works)

    async def aclose(self) -> None:
        """End the calls and refreshes under way; what was found already is kept first. Waits for all of them."""
        for task in self._refreshes.values():
            task.cancel()
        await asyncio.gather(*self._refreshes.values(), return_exceptions=True)
        await self._single_flight.aclose()
        if isinstance(self._store, GuardedStore):
            await self._store.aclose()

    def _key(self, scope: str, query: str, k: int) -> str:
        """Return a key that tells no query. The braces keep all keys of a search in one Cluster slot."""
        folded = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", query).casefold()).split())
        identity = json.dumps([_VERSION, *self._identity, scope, folded, k])
        return f"sr1:search:v{_VERSION}:{{{hashlib.sha256(identity.encode()).hexdigest()}}}"

    def _usable(self, data: bytes | None) -> Found | None:
        """Return the entry in ``data`` as a hit or as stale, None if there is none to serve."""
        entry = None if data is None else unpack(data, Entry, max_bytes=self._config.max_entry_bytes)
        if entry is None:
            return None
        soft_s, hard_s = self._config.ttl_s(entry.provider)
        if not entry.passages:
            soft_s = hard_s = self._config.empty_ttl_s
        age_s = max(self._clock() - entry.stored_at_s, 0.0)
        if age_s >= hard_s:
            return None
        return Found(entry.passages, "hit" if age_s < soft_s else "stale", age_s, entry.provider)

    async def _fetch(self, search: _Search, store_works: bool) -> SearchOutcome:
        """Call ``inner``, or wait for an identical search that does."""
        while True:
            call, leads = self._single_flight.join(
                search.key, search.deadline, partial(self._lead, search, store_works)
            )
            outcome = await self._single_flight.wait(search.key, call, search.deadline.left_s())
            if outcome is None:
                return SearchFailed("timeout", "the search did not end within its deadline")
            if leads:  # what it found is kept by then, if the store is well
                await self._single_flight.end(call, search.deadline.left_s())
                return outcome
            if _ran_out(outcome, call.deadline) and search.deadline.left_s() > _WORTH_A_CALL_S:
                continue
            self._observer.cache("coalesced")
            return _as_hit(outcome)

    async def _lead(self, search: _Search, store_works: bool, call: SharedCall[SearchOutcome]) -> None:
        """Answer ``call`` for all who joined it, then keep the answer."""
        lock, token = self._lock if store_works else None, secrets.token_hex(8)
        result = LockResult(publishes=store_works)
        try:
            if lock is not None:  # at most half of the time is spent waiting for another process
                result = await lock.take(search.key, token, search.deadline.left_s() / 2)
            self._observer.cache("miss" if result.outcome is None else "coalesced")
            outcome = result.outcome or await self._call(search.query, search.k, search.deadline)
            if isinstance(outcome, SearchFailed):
                self._single_flight.forget(search.key, call)
            call.answer.set_result(outcome)
            if result.outcome is None and result.publishes:
                await self._publish(search, lock, token, outcome)
        finally:
            if lock is not None:  # even where the claim seemed to fail: it may have come too late to be noticed
                await lock.release(search.key, token)

    async def _call(self, query: str, k: int, deadline: Deadline) -> SearchOutcome:
        """Search ``inner``, which may end a little before who waits does, so that its own outcome is what they see."""
        left_s = deadline.left_s()
        if left_s <= 0:
            return SearchFailed("timeout", "no time was left to search")
        return await self._inner.search(query, k, left_s - min(_SPARE_S, left_s / 20))

    async def _publish(self, search: _Search, lock: ProcessLock | None, token: str, outcome: SearchOutcome) -> None:
        """Keep what was found. Tell a failure to the processes that wait for it."""
        if isinstance(outcome, Found):
            await self._keep(search.key, outcome)
        elif lock is not None and not _ran_out(outcome, search.deadline):
            await lock.publish_failure(search.key, token, outcome)

    async def _keep(self, key: str, found: Found) -> bool:
        config = self._config
        record = Entry(self._clock() - (found.age_s or 0.0), found.provider, found.passages)
        data = pack(record, max_bytes=config.max_entry_bytes, compress_over_bytes=_COMPRESS_OVER_BYTES)
        if data is None:
            self._observer.cache("too_large")
            return False
        ttl_s = config.ttl_s(found.provider)[1] if found.passages else config.empty_ttl_s
        try:
            await self._store.set(key, data, ttl_s)
        except StoreError:
            self._observer.cache("bypass")
            return False
        return True

    def _start_refresh(self, search: _Search) -> None:
        if search.key in self._refreshes or len(self._refreshes) >= _MAX_REFRESHES:
            return
        task = asyncio.create_task(self._refresh(search))
        self._refreshes[search.key] = task
        task.add_done_callback(lambda _: self._refreshes.pop(search.key, None))

    async def _refresh(self, search: _Search) -> None:
        """Renew an entry. The claim of one that could not be renewed stays until it expires, as its cooldown."""
        claim, token = f"{search.key}:refresh", secrets.token_hex(8)
        try:
            holder = await self._store.claim(claim, token, self._refresh_s)
        except StoreError:
            self._observer.cache("bypass")
            return
        if holder != token:
            return
        self._observer.cache("refresh")
        outcome = await self._call(search.query, search.k, Deadline(self._refresh_s))
        if isinstance(outcome, Found) and await self._keep(search.key, outcome):
            with contextlib.suppress(StoreError):  # then it expires
                await self._store.release(claim, token)


def _ran_out(outcome: SearchOutcome, deadline: Deadline) -> bool:
    """Tell whether a search failed only for ``deadline``, so that one with more time may not."""
    return isinstance(outcome, SearchFailed) and outcome.kind == "timeout" and deadline.left_s() <= 2 * _SPARE_S


def _as_hit(outcome: SearchOutcome) -> SearchOutcome:
    """Return the outcome of one who waited for another's search: it called no provider, and is charged for none."""
    if isinstance(outcome, Found) and outcome.cache == "miss":
        return replace(outcome, cache="hit", age_s=0.0)
    return outcome


@dataclass(frozen=True, slots=True)
class _View:
    cached: CachedRetriever
    scope: str
    only: bool

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return await self.cached.search_as(self.scope, self.only, query, k, deadline_s)
