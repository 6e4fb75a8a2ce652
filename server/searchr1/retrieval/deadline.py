"""Deadlines of searches: the time that is left, and a call that cannot take more than that."""

import asyncio
import math

from searchr1.retrieval.base import Retriever, SearchFailed, SearchOutcome


class Deadline:
    """A moment on the running event loop's clock, ``deadline_s`` seconds from now; ``math.inf`` never comes."""

    __slots__ = ("_at_s", "_loop")

    def __init__(self, deadline_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._at_s = self._loop.time() + deadline_s

    def left_s(self) -> float:
        """Return the seconds until then; negative once it has passed."""
        return self._at_s - self._loop.time()


def timeout(seconds: float) -> asyncio.Timeout:
    """Return an ``asyncio.timeout``; ``math.inf`` is no limit."""
    return asyncio.timeout(seconds if math.isfinite(seconds) else None)


async def search_within(inner: Retriever, query: str, k: int, deadline_s: float, name: str) -> SearchOutcome:
    """Search ``inner``, called ``name`` in messages, and cut it off if it does not keep its deadline."""
    try:
        async with timeout(deadline_s):
            return await inner.search(query, k, deadline_s)
    except TimeoutError:
        return SearchFailed("timeout", f"{name} did not answer within {deadline_s:g} s")
