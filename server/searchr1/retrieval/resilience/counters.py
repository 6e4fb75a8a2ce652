"""Counters of searches and money that expire: the protocol of their stores, and one in this process's memory."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from searchr1.errors import SearchR1Error


class CounterError(SearchR1Error):
    """Failure to reach the counters. The message names no address."""


@dataclass(frozen=True, slots=True)
class Spend:
    """A number of searches, and what they cost in millionths of a US dollar."""

    searches: int
    micros: int


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits of the counter ``key``; None is no limit. ``scope`` names the quota where it refuses."""

    scope: str
    key: str
    searches: int | None
    micros: int | None


@dataclass(frozen=True, slots=True)
class Refused:
    """The quota that had no room, and the seconds until its counter starts anew."""

    scope: str
    retry_after_s: float


class CounterStore(Protocol):
    """Counters that any number of searches change at once."""

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """Add ``spend`` to all counters if all have room for it, else to none, and name the first without.

        A counter starts at zero and is gone ``window_s`` seconds after its first reservation. Raises ``CounterError``.
        """
        ...

    async def refusal(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """Return what ``reserve`` would, and add nothing. Raises ``CounterError``."""
        ...

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        """Add ``change``, which may be negative, to those counters that still exist; none falls below zero.

        Raises ``CounterError``.
        """
        ...


@dataclass(slots=True)
class _Counter:
    ends_s: float
    searches: int = 0
    micros: int = 0


class MemoryCounters:
    """A ``CounterStore`` for one process. ``clock`` gives seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counters: dict[str, _Counter] = {}

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.reserve``."""
        if (refused := await self.refusal(quotas, spend, window_s)) is not None:
            return refused
        now_s = self._clock()
        for quota in quotas:
            counter = self._counters.setdefault(quota.key, _Counter(now_s + window_s))
            counter.searches += spend.searches
            counter.micros += spend.micros
        return None

    async def refusal(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.refusal``."""
        now_s = self._clock()
        self._drop_ended(now_s)
        for quota in quotas:
            counter = self._counters.get(quota.key) or _Counter(now_s + window_s)
            over_searches = quota.searches is not None and counter.searches + spend.searches > quota.searches
            over_micros = quota.micros is not None and counter.micros + spend.micros > quota.micros
            if over_searches or over_micros:
                return Refused(quota.scope, counter.ends_s - now_s)
        return None

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        """See ``CounterStore.adjust``."""
        self._drop_ended(self._clock())
        for counter in (self._counters[key] for key in keys if key in self._counters):
            counter.searches = max(counter.searches + change.searches, 0)
            counter.micros = max(counter.micros + change.micros, 0)

    def held(self, key: str) -> Spend:
        """Return what a counter holds now."""
        self._drop_ended(self._clock())
        counter = self._counters.get(key)
        return Spend(0, 0) if counter is None else Spend(counter.searches, counter.micros)

    def _drop_ended(self, now_s: float) -> None:
        # Windows are of one length, so the oldest counters end first.
        while self._counters:
            key, counter = next(iter(self._counters.items()))
            if counter.ends_s > now_s:
                return
            del self._counters[key]
