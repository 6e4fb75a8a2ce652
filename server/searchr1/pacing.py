"""How often a streamed completion is looked at: at once where few are open, more seldom the more there are.

What one look costs (a wake-up, an event, a write to the reader) does not depend on how many tokens it finds. Engines
keep what comes meanwhile, so fewer looks lose nothing, and one thread serves more streams.
"""

import asyncio
from collections.abc import Collection
from types import TracebackType
from typing import Final, Self

PAUSE_PER_STREAM_S: Final = 0.0005
"""Pause for each other open completion: all of them together are looked at 2,000 times a second at most."""


class Pacing:
    """The pauses between two looks at one completion, for all completions of a process.

    Args:
        longest_s: no pause is longer; 0 has every token looked at as it comes.
        is_fixed: every pause is as long, however few completions are open.
    """

    def __init__(self, longest_s: float, *, is_fixed: bool = False) -> None:
        self.fixed_s = longest_s if is_fixed else None
        """Seconds of every pause, where all are as long."""
        self._longest_s = longest_s
        self._per_stream_s = longest_s if is_fixed else PAUSE_PER_STREAM_S
        self._num_others = 0 if is_fixed else -1

    def looks(self, stops: Collection[str]) -> "Looks":
        """Return the looks at a completion that ends at one of ``stops``, as a context in which it is open."""
        return Looks(self, stops)

    def opened(self) -> None:
        """Count one more open completion."""
        self._num_others += 1

    def closed(self) -> None:
        """Count it no more."""
        self._num_others -= 1

    def pause_s(self) -> float:
        """Return the seconds between two looks at present; 0 where one completion alone is open."""
        return min(self._longest_s, self._per_stream_s * self._num_others)


_SLOW_SHARE: Final = 1.25

UNPACED: Final = Pacing(0.0)
"""Every token as it comes."""


class Looks:
    """The looks at one completion, which is open in this context."""

    __slots__ = ("_looked_at", "_loop", "_pacing", "_stops")

    def __init__(self, pacing: Pacing, stops: Collection[str]) -> None:
        self._pacing, self._stops = pacing, stops
        self._loop = asyncio.get_running_loop()
        self._looked_at = float("-inf")

    def __enter__(self) -> Self:
        self._pacing.opened()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pacing.closed()

    async def pause(self, text: str, *, at_most_s: float) -> None:
        """Wait for as long as the next look should, after one that found ``text``.

        A stream that gives its pieces at longer intervals anyway is not waited for.
        """
        pause_s = self._pacing.pause_s()
        now = self._loop.time()
        is_slow = now - self._looked_at > _SLOW_SHARE * pause_s
        self._looked_at = now
        if pause_s and not is_slow and not may_end(text, self._stops):
            await asyncio.sleep(min(pause_s, at_most_s))


def may_end(text: str, stops: Collection[str]) -> bool:
    """Return whether a stop string may have begun in ``text``: a pause would then hold up the turn's end.

    >>> may_end("and so </", ["</search>", "</answer>"])
    True
    >>> may_end("and so on", ["</search>", "</answer>"])
    False
    """
    return any(stop[0] in text[-len(stop) :] for stop in stops if stop)
