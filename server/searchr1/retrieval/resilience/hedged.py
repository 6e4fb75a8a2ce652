"""Hedging: a second, identical search once the first takes longer than most do; the first useful outcome wins."""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

from searchr1.retrieval.base import Found, Retriever, SearchObserver, SearchOutcome
from searchr1.retrieval.deadline import Deadline

_CREDIT_MAX = 10.0
"""Hedges that a time without any can save up for a slow one."""


class HedgedRetriever:
    """A ``Retriever`` around ``inner``, which keeps its deadlines, against its slow tail. For one event loop.

    After ``min_samples`` answered searches, one that takes longer than the ``after_quantile`` of the last ``window``
    gets a second call with the time left. At most ``max_share`` of the searches do. The call that loses is cancelled
    and awaited; a first call that loses counts with the time it had taken, failures do not count.
    """

    def __init__(
        self,
        inner: Retriever,
        *,
        name: str,
        observer: SearchObserver,
        after_quantile: float = 0.95,
        min_samples: int = 50,
        window: int = 500,
        max_share: float = 0.05,
    ) -> None:
        if not 0 < after_quantile < 1 or not 0 < max_share <= 1 or not 1 <= min_samples <= window:
            raise ValueError("a hedge needs 0 < after_quantile < 1, 0 < max_share <= 1, 1 <= min_samples <= window")
        self._inner, self._name, self._observer = inner, name, observer
        self._quantile, self._min_samples, self._max_share = after_quantile, min_samples, max_share
        self._samples_s: deque[float] = deque(maxlen=window)
        self._credit = 0.0

    def hedge_after_s(self) -> float | None:
        """Return the seconds after which a search is slow, or None while too few are known."""
        if len(self._samples_s) < self._min_samples:
            return None
        ranked_s = sorted(self._samples_s)
        return ranked_s[min(int(self._quantile * len(ranked_s)), len(ranked_s) - 1)]

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        self._credit = min(self._credit + self._max_share, _CREDIT_MAX)
        deadline = Deadline(deadline_s)
        after_s = self.hedge_after_s()
        if after_s is None or after_s >= deadline_s or self._credit < 1:
            return await self._timed_search(query, k, deadline_s)
        had_s = deadline.left_s()
        first = asyncio.create_task(self._timed_search(query, k, deadline_s))
        calls = [first]
        try:
            await asyncio.wait(calls, timeout=after_s)
            if first.done():
                return first.result()
            self._credit -= 1
            calls.append(asyncio.create_task(self._timed_search(query, k, deadline.left_s())))
            winner = await _first_useful(calls)
            won = winner is not first and isinstance(winner.result(), Found)
            if won:
                self._samples_s.append(had_s - deadline.left_s())
            self._observer.hedge(self._name, won=won)
            return winner.result()
        finally:
            await _end(calls)

    async def _timed_search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        outcome = await self._inner.search(query, k, deadline_s)
        if isinstance(outcome, Found):
            self._samples_s.append(loop.time() - began_s)
        return outcome


async def _first_useful(calls: Sequence["asyncio.Task[SearchOutcome]"]) -> "asyncio.Task[SearchOutcome]":
    """Return the first call that found something, or the first call where both fail."""
    waiting = set(calls)
    while True:
        _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        ended = [call for call in calls if call.done()]
        useful = [call for call in ended if isinstance(call.result(), Found)]
        if useful or not waiting:
            return (useful or ended)[0]


async def _end(calls: Iterable["asyncio.Task[SearchOutcome]"]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
