"""A retry budget: how many completions may be asked for again, so that retries never drown an engine that is unwell.

The rule is Finagle's: in any ``window_s`` seconds, retries are at most ``share`` of the completions begun in them, and
``floor_per_s`` a second on top, so that a process with little to do may retry too.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_PERIODS: Final = 10
"""Parts of the window; what is older than the window leaves it by parts."""


@dataclass(slots=True)
class _Period:
    number: int
    num_completions: int = 0
    num_retries: int = 0


class RetryBudget:
    """One budget, without I/O. ``clock`` gives seconds and never runs back."""

    def __init__(
        self,
        *,
        share: float = 0.2,
        floor_per_s: float = 10.0,
        window_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share, self._floor, self._clock = share, floor_per_s * window_s, clock
        self._period_s = window_s / _PERIODS
        self._periods: deque[_Period] = deque()
        self.num_refused = 0
        """Retries that were refused so far."""

    def note_completion(self) -> None:
        """Take note of a completion that is asked for the first time."""
        self._current().num_completions += 1

    def try_spend(self) -> bool:
        """Spend one retry; return False, and spend nothing, where none is left."""
        period = self._current()
        num_completions = sum(one.num_completions for one in self._periods)
        num_retries = sum(one.num_retries for one in self._periods)
        if num_retries + 1 > self._share * num_completions + self._floor:
            self.num_refused += 1
            return False
        period.num_retries += 1
        return True

    def _current(self) -> _Period:
        number = int(self._clock() / self._period_s)
        if not self._periods or self._periods[-1].number != number:
            self._periods.append(_Period(number))
            while self._periods[0].number <= number - _PERIODS:
                self._periods.popleft()
        return self._periods[-1]


SHARED_BUDGET: Final = RetryBudget()
"""The budget of completions for which nobody names another one: those of trainers and evaluators."""
