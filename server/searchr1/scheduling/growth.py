"""How many tokens a run will still grow by, learned from runs that ended."""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Protocol

_WINDOW = 512
"""Ended runs that are remembered for each turn; old ones make room, so that a change of traffic is learned."""
_ENOUGH = 8
_MAX_TURN = 32


class Growth(Protocol):
    """What is expected of runs, and learned from them."""

    def remaining_tokens(self, run: str, turn: int) -> int:
        """Return the tokens by which ``run`` is expected to grow from the beginning of its ``turn`` (from 1) on."""
        ...

    def learn(self, footprints: Sequence[int], last_footprint: int) -> None:
        """Take the footprints of a run that ended: at the beginning of each turn, and at its end."""
        ...


class LearnedGrowth:
    """A quantile, for each turn, of the growth that ended runs had left when they began that turn.

    >>> growth = LearnedGrowth(quantile=0.5, first_tokens=1000)
    >>> growth.remaining_tokens("a", 1)
    1000
    >>> for _ in range(8):
    ...     growth.learn([200, 800], 850)
    >>> growth.remaining_tokens("b", 1), growth.remaining_tokens("b", 2), growth.remaining_tokens("b", 3)
    (650, 50, 50)
    """

    def __init__(self, *, quantile: float, first_tokens: int) -> None:
        self._quantile = quantile
        self._first_tokens = first_tokens
        self._turns: list[_Window] = []

    def remaining_tokens(self, run: str, turn: int) -> int:
        """See ``Growth``. A turn that few runs reached is taken for the last one that is known."""
        for window in self._turns[min(turn, len(self._turns)) - 1 :: -1] if self._turns else ():
            if len(window) >= _ENOUGH:
                return window.quantile(self._quantile)
        return self._first_tokens

    def learn(self, footprints: Sequence[int], last_footprint: int) -> None:
        """See ``Growth``."""
        for index, footprint in enumerate(footprints[:_MAX_TURN]):
            if index == len(self._turns):
                self._turns.append(_Window())
            self._turns[index].add(max(0, last_footprint - footprint))


class _Window:
    """The newest numbers, sorted."""

    def __init__(self) -> None:
        self._in_order_of_coming: deque[int] = deque()
        self._sorted: list[int] = []

    def __len__(self) -> int:
        return len(self._sorted)

    def add(self, number: int) -> None:
        if len(self._sorted) == _WINDOW:
            del self._sorted[bisect_left(self._sorted, self._in_order_of_coming.popleft())]
        self._in_order_of_coming.append(number)
        insort(self._sorted, number)

    def quantile(self, share: float) -> int:
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]
