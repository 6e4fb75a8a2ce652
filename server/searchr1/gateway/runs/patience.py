"""Patience with a store: what is done once something takes too long, by a process that did not stand still itself."""

import asyncio
from collections.abc import Callable

_STOOD_STILL_S = 1.0
"""A timer that is this much late tells of a process that stood still, and not of a slow store."""


class Patience:
    """A timer that calls ``give_up`` once, ``within_s`` seconds after ``begin``, unless ``end`` comes first.

    After a standstill of the process it begins anew: another replica may own the run by now, and the store's answer,
    which waits to be read, tells.
    """

    __slots__ = ("_give_up", "_timer", "_within_s")

    def __init__(self, within_s: float, give_up: Callable[[], None]) -> None:
        self._within_s, self._give_up = within_s, give_up
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Start the timer."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._within_s
        self._timer = loop.call_at(due_s, self._look, due_s)

    def end(self) -> None:
        """Stop the timer, if it runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, due_s: float) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() - due_s > _STOOD_STILL_S:
            self.begin()
        else:
            self._give_up()
