"""A circuit breaker for one provider and key, or for one replica of an engine.

========= ================== ====================================== =========
state     which calls pass   what happens                           next
========= ================== ====================================== =========
closed    all                ``failures`` failures in a row         open
closed    all                a call ends as ``unauthorized``        open
open      none               its time is over, and a call asks      half open
half open one, the probe     the probe ends as ``success``          closed
half open one, the probe     it ends as ``failure``/``unauthorized`` open
half open one, the probe     it ends as ``cancelled``               half open
========= ================== ====================================== =========

A call speaks only for the period between two changes of state in which it began: one that was let through before the
circuit opened decides nothing after that.
"""

import time
from collections.abc import Callable
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]
CallResult = Literal["success", "failure", "unauthorized", "cancelled"]
"""``unauthorized``: the provider refuses our key or plan, and so all calls. ``cancelled``: nothing is known."""


class Breaker:
    """A state machine without I/O: ``allow`` a call, then ``record`` how it ended.

    It stays open for ``reset_s`` seconds after failures and for ``unauthorized_reset_s`` after a refused key.
    ``on_change`` is called with every new state. ``clock`` gives seconds and never runs back.
    """

    def __init__(
        self,
        *,
        failures: int,
        reset_s: float,
        unauthorized_reset_s: float,
        on_change: Callable[[BreakerState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_failures, self._reset_s, self._unauthorized_reset_s = failures, reset_s, unauthorized_reset_s
        self._on_change, self._clock = on_change, clock
        self._state: BreakerState = "closed"
        self._failures = 0
        self._reopens_at_s = 0.0
        self._period = 0
        self._is_probing = False

    @property
    def state(self) -> BreakerState:
        """The state now; ``open`` until a call has been let through again."""
        return self._state

    def open_for_s(self) -> float:
        """Return the seconds until a call may pass again; 0 unless the circuit is open."""
        return max(self._reopens_at_s - self._clock(), 0.0) if self._state == "open" else 0.0

    def allow(self) -> int | None:
        """Let a call pass and return its period, to be given to ``record`` when it has ended; or return None."""
        if self._is_probing or self.open_for_s() > 0:
            return None
        if self._state == "open":
            self._change("half_open")
        self._is_probing = self._state == "half_open"
        return self._period

    def record(self, period: int, result: CallResult) -> None:
        """Take note of how a call ended that ``allow`` let pass in ``period``."""
        if period != self._period:
            return
        self._is_probing = False
        if result == "unauthorized":
            self._open(self._unauthorized_reset_s)
        elif result == "failure":
            self._failures += 1
            if self._state == "half_open" or self._failures >= self._max_failures:
                self._open(self._reset_s)
        elif result == "success":
            self._failures = 0
            if self._state == "half_open":
                self._change("closed")

    def _open(self, reset_s: float) -> None:
        self._reopens_at_s = self._clock() + reset_s
        self._change("open")

    def _change(self, state: BreakerState) -> None:
        self._state, self._failures = state, 0
        self._period += 1
        self._on_change(state)
