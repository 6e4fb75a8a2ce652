"""How fast runs end, for an honest word on when to try again."""

import math

_MEMORY_S = 30.0
_FIRST_RUN_S = 4.0
"""Duration that runs are taken to have before any has ended."""
_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


class Endings:
    """The rate at which runs end, over about the last half minute."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._counted_at: float | None = None
        self._first_at = 0.0

    def count(self, now: float) -> None:
        """Count a run that ended now."""
        if self._counted_at is None:
            self._first_at = now
        self._weight = self._decayed(now) + 1
        self._counted_at = now

    def per_s(self, now: float, num_admitted: int) -> float:
        """Return the runs that end in a second, while ``num_admitted`` go on."""
        if self._counted_at is None:
            return max(1, num_admitted) / _FIRST_RUN_S
        seen_s = max(now - self._first_at, 1.0)
        return self._decayed(now) / (_MEMORY_S * -math.expm1(-seen_s / _MEMORY_S))

    def retry_after_s(self, num_before: float, now: float, num_admitted: int) -> float:
        """Return when there may be room for a run that has ``num_before`` others before it, within sane bounds."""
        rate = self.per_s(now, num_admitted)
        if rate * _LONGEST_RETRY_S <= num_before + 1:
            return _LONGEST_RETRY_S
        return max(_SHORTEST_RETRY_S, (num_before + 1) / rate)

    def _decayed(self, now: float) -> float:
        return 0.0 if self._counted_at is None else self._weight * math.exp((self._counted_at - now) / _MEMORY_S)
