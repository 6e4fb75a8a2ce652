"""A circuit breaker for one provider and key: purgatory's states, with one probe at a time and verdicts as values.

closed: calls pass, and ``failures`` failed ones in a row open it. open: no call passes until its rest is over.
half open: one call passes, which closes or opens it again; a call given up half-way decides nothing.
"""

import time
from collections.abc import Callable
from typing import Literal

from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import HALF_OPENED, OPENED, Context, OpenedState

from searchr1.retrieval.base import BreakerState

Verdict = Literal["passed", "failed", "refused", "unknown"]
"""``refused``: the other side will have none of our calls. ``unknown``: the call was given up."""

_STATES: dict[str, BreakerState] = {"closed": "closed", "opened": "open", "half-opened": "half_open"}


class Call:
    """A call that the breaker let pass."""

    __slots__ = ()


class _CallFailedError(Exception):
    """What purgatory is told of a failed call."""


class Breaker:
    """See the module. Rests for ``reset_s`` seconds after failures, for ``refused_reset_s`` after a refusal.

    ``on_change`` hears of every new state. Rests are measured by the wall clock, as purgatory does. For one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int,
        reset_s: float,
        refused_reset_s: float,
        on_change: Callable[[BreakerState], None],
    ) -> None:
        self._reset_s, self._refused_reset_s, self._on_change = reset_s, refused_reset_s, on_change
        self._context = Context(name, failures, reset_s)
        self._probe: Call | None = None

    @property
    def state(self) -> BreakerState:
        """The state now; ``open`` until a call has been let through again."""
        return _STATES[self._context.state]

    def open_for_s(self) -> float:
        """Seconds of rest that are left; 0 unless it is open."""
        opened_at_s = self._context.opened_at
        if self._context.state != OPENED or opened_at_s is None:
            return 0.0
        return max(opened_at_s + self._context.ttl - time.time(), 0.0)

    def admit(self) -> Call | None:
        """Let a call pass, to be given to ``settle`` when it has ended, or return None."""
        if self._probe is not None or self.open_for_s() > 0:
            return None
        try:
            self._context.handle_new_request()
        except OpenedState:  # the clock stands exactly at the end of the rest
            return None
        call = Call()
        if self._context.state == HALF_OPENED:
            self._probe = call
        self._announce()
        return call

    def settle(self, call: Call, verdict: Verdict) -> None:
        """Say how an admitted call ended. One that began before the circuit opened does not speak for it later."""
        if self._probe is call:
            self._probe = None
        elif self._context.state != "closed":
            return
        if verdict == "passed":
            self._context.handle_end_request()
        elif verdict == "failed":
            self._context.ttl = self._reset_s
            self._context.handle_exception(_CallFailedError())
        elif verdict == "refused":
            self._context.ttl = self._refused_reset_s
            self._context.set_state(OpenedState(self._context.name))
        self._announce()

    def _announce(self) -> None:
        messages, self._context.messages = self._context.messages, []
        for message in messages:
            if isinstance(message, ContextChanged):
                self._on_change(_STATES[message.state])
