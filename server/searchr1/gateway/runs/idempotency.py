"""Idempotency keys: which run a caller's key has started, so that a request sent again starts no second one.

A claim ties a key to a run and to the request that began it. It is made before the run begins, and given up where the
run can't begin. This replica remembers its claims in memory, and shares them through the ``RunStore``, where other
replicas find them. Where the store does not answer, a key is known on the replica that it came to.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from searchr1.gateway.runs.store.base import RunStore, RunStoreError

MAX_CLAIMS = 10_000
"""Claims that a replica remembers; the oldest go first. One takes some hundred bytes, whatever its key."""


class Claim(msgspec.Struct, frozen=True):
    """The run that a key began, or is about to."""

    fingerprint: str
    """Digest of the request; the same key with another one is a mistake of the caller's."""
    run_id: str
    claimed_at: int
    """Unix time, seconds."""


@dataclass(slots=True)
class _Entry:
    claim: Claim
    expires_at: float
    is_own: bool = True
    """True for a claim of this replica."""
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the claim's run has begun, or the claim is given up."""


def claim_name(scope: str, key: str) -> str:
    """Return the name of the claims of one caller's key: no other scope and key have the same."""
    return hashlib.sha256(f"{scope}\0{key}".encode("utf-8", "surrogatepass")).hexdigest()


class IdempotencyKeys:
    """Claims of the idempotency keys of all callers, by ``claim_name``.

    ``on_failure`` is told of each failure of the store. ``clock`` gives seconds.
    """

    def __init__(
        self,
        store: RunStore,
        *,
        ttl_s: float,
        on_failure: Callable[[RunStoreError], None],
        max_claims: int = MAX_CLAIMS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._ttl_s, self._on_failure = store, ttl_s, on_failure
        self._max_claims, self._clock = max_claims, clock
        self._entries: dict[str, _Entry] = {}
        """From the oldest to the newest."""

    async def claim(self, name: str, mine: Claim, *, shared: bool) -> Claim:
        """Return the claim that stands: ``mine``, or an earlier one. A claim that is not ``shared`` stays here.

        An earlier one of this replica is waited for until its run has begun. Whoever gets ``mine`` has to call
        ``begun`` or ``release``.
        """
        while (entry := self._found(name)) is not None:
            if entry.decided.is_set():
                return entry.claim
            await entry.decided.wait()
        entry = self._entries[name] = _Entry(mine, self._clock() + self._ttl_s)
        self._make_room()
        if not shared:
            return mine
        try:
            standing = await self._share(name, mine)
        except BaseException:
            self.forget(name, mine)
            raise
        if standing != mine:
            entry.claim, entry.is_own = standing, False
            entry.decided.set()
        return standing

    async def knows(self, name: str) -> bool:
        """Tell whether a claim stands, on any replica."""
        if self._found(name) is not None:
            return True
        try:
            return await self._store.claimed(name) is not None
        except RunStoreError as error:
            self._on_failure(error)
            return False

    def is_own(self, name: str) -> bool:
        """Tell whether the claim is known to be this replica's."""
        entry = self._found(name)
        return entry is not None and entry.is_own

    def begun(self, name: str, claim: Claim) -> None:
        """Note that the claim's run has begun: it can be found."""
        entry = self._entries.get(name)
        if entry is not None and entry.claim == claim:
            entry.decided.set()

    async def release(self, name: str, claim: Claim) -> None:
        """Give up a claim on all replicas; another one that has taken its place stays."""
        self.forget(name, claim)
        try:
            await self._store.release(name, msgspec.json.encode(claim))
        except RunStoreError as error:
            self._on_failure(error)

    def forget(self, name: str, claim: Claim) -> None:
        """Forget a claim on this replica."""
        entry = self._entries.get(name)
        if entry is not None and entry.claim == claim:
            self._drop(name)

    async def _share(self, name: str, mine: Claim) -> Claim:
        value = msgspec.json.encode(mine)
        try:
            standing = await self._store.claim(name, value)
            if (claim := _decoded(standing)) is None:  # Nobody can go by it, so it is in nobody's way.
                await self._store.release(name, standing)
                claim = _decoded(await self._store.claim(name, value))
        except RunStoreError as error:
            self._on_failure(error)
            return mine
        return mine if claim is None else claim

    def _found(self, name: str) -> _Entry | None:
        entry = self._entries.get(name)
        if entry is not None and entry.expires_at <= self._clock():
            self._drop(name)
            return None
        return entry

    def _make_room(self) -> None:
        while (oldest := next(iter(self._entries), None)) is not None:
            if len(self._entries) <= self._max_claims and self._entries[oldest].expires_at > self._clock():
                return
            self._drop(oldest)

    def _drop(self, name: str) -> None:
        self._entries.pop(name).decided.set()


def _decoded(value: bytes) -> Claim | None:
    try:
        return msgspec.json.decode(value, type=Claim)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
