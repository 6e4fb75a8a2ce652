"""Counters that go on while shared ones can't be reached: this process counts along, and then decides by its own count.

To refuse everybody then would make Redis a part that all searches need; to let everybody pass would be to fail open.
"""

from collections.abc import Sequence
from dataclasses import replace

from searchr1.retrieval.resilience.counters import CounterError, CounterStore, MemoryCounters, Quota, Refused, Spend


class CountedAlong:
    """Counters in a ``CounterStore`` that others share, and in this process; no method raises ``CounterError``.

    The shared ones decide while they can be reached. While they can't, an account has its limits in each process by
    itself; what it spends meanwhile is added to the shared ones once they are back.
    """

    def __init__(
        self, shared: CounterStore, *, own: MemoryCounters | None = None, owed: MemoryCounters | None = None
    ) -> None:
        """``own`` and ``owed`` are empty: what this process counted, and what of it the shared ones lack."""
        self._shared = shared
        self._own, self._owed = own or MemoryCounters(), owed or MemoryCounters()
        self._window_s = 0.0
        self.outages = 0
        """Operations that the shared counters did not take."""

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.reserve``."""
        self._window_s = window_s
        keys = [quota.key for quota in quotas]
        by_own = await self._own.reserve(quotas, spend, window_s)
        try:
            await self._tell(keys)
            refused = await self._shared.reserve(quotas, spend, window_s)
        except CounterError:
            self.outages += 1
            if by_own is None:
                await self._owed.reserve([_unlimited(quota) for quota in quotas], spend, window_s)
            return by_own
        if refused is None and by_own is not None:
            await self._own.adjust(keys, spend)
        elif refused is not None and by_own is None:
            await self._own.adjust(keys, Spend(-spend.searches, -spend.micros))
        return refused

    async def refusal(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        """See ``CounterStore.refusal``."""
        self._window_s = window_s
        try:
            await self._tell([quota.key for quota in quotas])
            return await self._shared.refusal(quotas, spend, window_s)
        except CounterError:
            self.outages += 1
            return await self._own.refusal(quotas, spend, window_s)

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        """See ``CounterStore.adjust``."""
        await self._own.adjust(keys, change)
        try:
            await self._tell(keys)
            await self._shared.adjust(keys, change)
        except CounterError:
            self.outages += 1
            await self._owed.adjust(keys, change)

    async def _tell(self, keys: Sequence[str]) -> None:
        """Add what the shared counters lack to them. Raises ``CounterError``; what they did not take stays owed."""
        for key in keys:
            if (spend := self._owed.held(key)) == Spend(0, 0):
                continue
            quota = Quota("", key, None, None)
            # Before it is told: a caller that leaves meanwhile does not stop what is on its way.
            await self._owed.adjust([key], Spend(-spend.searches, -spend.micros))
            try:
                await self._shared.reserve([quota], spend, self._window_s)
            except CounterError:
                await self._owed.reserve([quota], spend, self._window_s)
                raise


def _unlimited(quota: Quota) -> Quota:
    return replace(quota, searches=None, micros=None)
