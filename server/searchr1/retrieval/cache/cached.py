"""Searches kept and shared: a repeated search costs nothing, and identical ones at the same time cost one call.

A search reads its entry. A fresh entry is a hit. Past its soft TTL it is served all the same, as stale, while one
refresh runs; past its hard TTL it is gone. Without an entry one search calls the provider, and the identical ones, in
this process and in those that share the store, wait for its answer. Failures are not kept: they reach those who wait
for that very call, and nobody else. A provider that fails behind a stale entry changes nothing for who searches.

A store that does not answer is left out: the search then calls the provider, as one with the identical ones in this
process.
"""

import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.single_flight import Flight, Flights
from searchr1.retrieval.cache.store import ByteStore, Entry, Failure, StoreError, pack, unpack
from searchr1.retrieval.deadline import Deadline

_VERSION = 1
_FAILURE_TTL_S = 2.0
_POLL_FIRST_S, _POLL_MAX_S, _POLL_GROWTH = 0.01, 0.1, 1.5
_MAX_REFRESHES = 64
_SPARE_S = 0.02
_WORTH_A_CALL_S = 0.1


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long searches are kept, and how much the store may cost them."""

    soft_ttl_s: float = 86_400.0
    """Age up to which an entry is a hit."""
    hard_ttl_s: float = 604_800.0
    """Age from which there is no entry."""
    empty_ttl_s: float = 300.0
    """The same for a search that found nothing, which is never stale."""
    ttls_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(soft, hard) of single providers, by name, or by the part of it before a colon."""
    max_entry_bytes: int = 262_144
    """Size, before it is deflated, over which a search is not kept."""
    compress_over_bytes: int = 1024
    bypass_s: float = 0.05
    """Longest wait for the store."""
    rest_s: float = 1.0
    """For how long a store that did not answer is not asked."""
    lock_s: float = 5.0
    """How long identical searches of other processes wait for one that may have died."""
    refresh_s: float = 10.0
    """Deadline of a refresh, and the rest between two of an entry after one failed."""

    def __post_init__(self) -> None:
        for name, (soft_s, hard_s) in {"all providers": (self.soft_ttl_s, self.hard_ttl_s), **self.ttls_s}.items():
            if not 0 < soft_s < hard_s:
                raise ConfigurationError(f"the soft TTL of {name} must be above 0 and below the hard one")

    def ttl_s(self, provider: str) -> tuple[float, float]:
        """(soft, hard) of ``provider``."""
        family = self.ttls_s.get(provider.partition(":")[0], (self.soft_ttl_s, self.hard_ttl_s))
        return self.ttls_s.get(provider, family)


@dataclass(frozen=True, slots=True)
class _Search:
    key: str
    query: str
    k: int
    deadline: Deadline


@dataclass(frozen=True, slots=True)
class _Turn:
    """What a search may do after it looked for others: take their ``outcome``, or call and tell others how it went."""

    outcome: SearchOutcome | None = None
    tells: bool = True


class CachedRetriever:
    """A ``Retriever`` that keeps in ``store`` what ``inner`` finds. Make one per event loop.

    ``provider`` and ``filters`` name everything that decides what ``inner`` finds. Searches that differ in case, width
    or white space only are the same. ``clock`` gives seconds of Unix time. ``store`` stays the caller's to close.
    """

    def __init__(
        self,
        inner: Retriever,
        store: ByteStore,
        *,
        provider: str,
        policy: CachePolicy,
        observer: SearchObserver,
        filters: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._inner, self._policy, self._observer, self._clock = inner, policy, observer, clock
        self._identity = (provider, sorted((filters or {}).items()))
        self._store = GuardedStore(store, bypass_s=policy.bypass_s, rest_s=policy.rest_s)
        self._flights: Flights[SearchOutcome] = Flights()
        self._refreshes: dict[str, asyncio.Task[None]] = {}

    def view(self, scope: str = "", only: bool = False) -> Retriever:
        """The cache as ``scope`` sees it: its entries are its own. With ``only``, ``inner`` is never called."""
        return _View(self, scope, only)

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        return await self.search_as("", False, query, k, deadline_s)

    async def search_as(self, scope: str, only: bool, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """``view(scope, only).search(query, k, deadline_s)``."""
        search = _Search(self._key(scope, query, k), query, k, Deadline(deadline_s))
        shared = True
        try:
            kept = self._usable(await self._store.get(search.key))
        except StoreError:
            self._observer.cache("bypass")
            kept, shared = None, False
        if kept is not None:
            self._observer.cache("stale" if kept.cache == "stale" else "hit")
            if kept.cache == "stale" and not only:
                self._start_refresh(search)
            return kept
        if only:
            self._observer.cache("not_cached")
            return SearchFailed("not_cached", "this search is not in the cache, and nothing else was to be asked")
        return await self._fetch(search, shared)

    async def aclose(self) -> None:
        """End the calls and refreshes under way; what was found already is kept first. Waits for all of them."""
        for task in self._refreshes.values():
            task.cancel()
        await asyncio.gather(*self._refreshes.values(), return_exceptions=True)
        await self._flights.aclose()
        await self._store.aclose()

    def _key(self, scope: str, query: str, k: int) -> str:
        """Whoever reads keys learns no query from them. The braces keep all keys of a search in one Cluster slot."""
        folded = " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", query).casefold()).split())
        identity = json.dumps([_VERSION, *self._identity, scope, folded, k])
        return f"sr1:search:v{_VERSION}:{{{hashlib.sha256(identity.encode()).hexdigest()}}}"

    def _usable(self, data: bytes | None) -> Found | None:
        """Return the entry in ``data`` as a hit or as stale, None if there is none to serve."""
        entry = None if data is None else unpack(data, Entry, max_bytes=self._policy.max_entry_bytes)
        if entry is None:
            return None
        soft_s, hard_s = self._policy.ttl_s(entry.provider)
        if not entry.passages:
            soft_s = hard_s = self._policy.empty_ttl_s
        age_s = max(self._clock() - entry.stored_at_s, 0.0)
        if age_s >= hard_s:
            return None
        return Found(entry.passages, "hit" if age_s < soft_s else "stale", age_s, entry.provider)

    async def _fetch(self, search: _Search, shared: bool) -> SearchOutcome:
        """Call ``inner``, or wait for an identical search that does."""
        while True:
            fly = partial(self._fly, search, shared)
            flight, leads = self._flights.join(search.key, search.deadline, fly)
            outcome = await self._flights.wait(search.key, flight, search.deadline.left_s())
            if outcome is None:
                return SearchFailed("timeout", "the search did not end within its deadline")
            if leads:  # what it found is kept by then, if the store is well
                await self._flights.end(flight, search.deadline.left_s())
                return outcome
            if _ran_out(outcome, flight.deadline) and search.deadline.left_s() > _WORTH_A_CALL_S:
                continue
            self._observer.cache("coalesced")
            return _as_hit(outcome)

    async def _fly(self, search: _Search, shared: bool, flight: Flight[SearchOutcome]) -> None:
        token = secrets.token_hex(8)
        try:
            turn = await self._take_turn(search, token) if shared else _Turn(tells=False)
            self._observer.cache("miss" if turn.outcome is None else "coalesced")
            outcome = turn.outcome or await self._call(search.query, search.k, search.deadline)
            if isinstance(outcome, SearchFailed):
                self._flights.forget(search.key, flight)
            flight.answer.set_result(outcome)
            if turn.outcome is None and turn.tells:
                await self._tell(search, token, outcome)
        finally:
            if shared:  # even where the claim seemed to fail: it may have come too late to be noticed
                await self._release(f"{search.key}:lock", token)

    async def _call(self, query: str, k: int, deadline: Deadline) -> SearchOutcome:
        """Search ``inner``, which may end a little before who waits does, so that its own outcome is what they see."""
        left_s = deadline.left_s()
        if left_s <= 0:
            return SearchFailed("timeout", "no time was left to search")
        return await self._inner.search(query, k, left_s - min(_SPARE_S, left_s / 20))

    async def _take_turn(self, search: _Search, token: str) -> _Turn:
        """Become the one process that calls, or wait for the one that does: at most half of the time that is left."""
        lock = f"{search.key}:lock"
        patience = Deadline(search.deadline.left_s() / 2)
        pause_s, awaited = _POLL_FIRST_S, ""
        try:
            while True:
                holder = await self._store.claim(lock, token, self._policy.lock_s)
                if holder != awaited and (holder == token or awaited):
                    outcome = await self._left_behind_by(awaited, search)
                    if outcome is not None or holder == token:
                        return _Turn(outcome)
                awaited = holder
                if patience.left_s() <= 0:
                    return _Turn()
                await asyncio.sleep(min(pause_s * random.uniform(0.5, 1.0), max(patience.left_s(), 0.0)))
                pause_s = min(pause_s * _POLL_GROWTH, _POLL_MAX_S)
        except StoreError:
            self._observer.cache("bypass")
            return _Turn(tells=False)

    async def _left_behind_by(self, holder: str, search: _Search) -> SearchOutcome | None:
        """What the search that held the lock as ``holder``, or any before it, found; or how that one failed."""
        kept = self._usable(await self._store.get_now(search.key))
        if kept is not None or not holder:
            return kept
        data = await self._store.get_now(f"{search.key}:failed:{holder}")
        failure = None if data is None else unpack(data, Failure, max_bytes=self._policy.max_entry_bytes)
        if failure is None:
            return None
        return SearchFailed(failure.kind, failure.message, failure.retry_after_s, failure.provider)

    async def _tell(self, search: _Search, token: str, outcome: SearchOutcome) -> None:
        """Keep what was found. A failure is left for those who wait for the holder of ``token``."""
        if isinstance(outcome, Found):
            await self._keep(search.key, outcome)
        elif not _ran_out(outcome, search.deadline):
            record = Failure(outcome.kind, outcome.message, outcome.retry_after_s, outcome.provider)
            size = self._policy.max_entry_bytes
            if (data := pack(record, max_bytes=size, compress_over_bytes=size)) is not None:
                await self._write(f"{search.key}:failed:{token}", data, _FAILURE_TTL_S)

    async def _keep(self, key: str, found: Found) -> bool:
        policy = self._policy
        record = Entry(self._clock() - (found.age_s or 0.0), found.provider, found.passages)
        data = pack(record, max_bytes=policy.max_entry_bytes, compress_over_bytes=policy.compress_over_bytes)
        if data is None:
            self._observer.cache("too_large")
            return False
        ttl_s = policy.ttl_s(found.provider)[1] if found.passages else policy.empty_ttl_s
        return await self._write(key, data, ttl_s)

    async def _write(self, key: str, data: bytes, ttl_s: float) -> bool:
        try:
            await self._store.set(key, data, ttl_s)
        except StoreError:
            self._observer.cache("bypass")
            return False
        return True

    async def _release(self, key: str, token: str) -> None:
        with contextlib.suppress(StoreError):  # then it expires
            await self._store.release(key, token)

    def _start_refresh(self, search: _Search) -> None:
        if search.key in self._refreshes or len(self._refreshes) >= _MAX_REFRESHES:
            return
        task = asyncio.create_task(self._refresh(search))
        self._refreshes[search.key] = task
        task.add_done_callback(lambda _: self._refreshes.pop(search.key, None))

    async def _refresh(self, search: _Search) -> None:
        """Renew an entry. The claim of one that could not be renewed stays until it expires, so that it rests."""
        claim, token = f"{search.key}:refresh", secrets.token_hex(8)
        try:
            holder = await self._store.claim(claim, token, self._policy.refresh_s)
        except StoreError:
            self._observer.cache("bypass")
            return
        if holder != token:
            return
        self._observer.cache("refresh")
        outcome = await self._call(search.query, search.k, Deadline(self._policy.refresh_s))
        if isinstance(outcome, Found) and await self._keep(search.key, outcome):
            await self._release(claim, token)


def _ran_out(outcome: SearchOutcome, deadline: Deadline) -> bool:
    """Tell whether a search failed only for ``deadline``, so that one with more time may not."""
    return isinstance(outcome, SearchFailed) and outcome.kind == "timeout" and deadline.left_s() <= 2 * _SPARE_S


def _as_hit(outcome: SearchOutcome) -> SearchOutcome:
    """Whoever waited for another's search called no provider, and is charged for none."""
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
