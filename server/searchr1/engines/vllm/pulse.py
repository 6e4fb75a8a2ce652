"""The pulse of an engine core: whether it answers a call that costs it nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

_EVERY_S: Final = 5.0


class Pulse:
    """The pulse of one engine core. ``call`` asks it, one call at a time; a core answers between two of its steps."""

    def __init__(self, call: Callable[[], Awaitable[Any]], *, every_s: float = _EVERY_S) -> None:
        self._call, self._every_s = call, every_s
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    def beat(self) -> None:
        """Ask again if the last answer has come, and not just now."""
        if self.unanswered_s == 0 and time.monotonic() - self._asked_at >= self._every_s:
            self._asked_at = time.monotonic()
            self._asking = asyncio.create_task(self._ask(), name="engine-pulse")

    @property
    def unanswered_s(self) -> float:
        """Seconds that the call under way has waited for its answer; 0 where none is under way."""
        if self._asking is None or self._asking.done():
            return 0.0
        return time.monotonic() - self._asked_at

    async def answers(self, within_s: float) -> bool:
        """Return whether the core answers a call by then."""
        if self.unanswered_s == 0:
            self._asked_at = float("-inf")
            self.beat()
        assert self._asking is not None
        done, _ = await asyncio.wait({self._asking}, timeout=within_s)
        return bool(done)

    async def aclose(self) -> None:
        """Forget the call under way."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking

    async def _ask(self) -> None:
        # An engine that fails the call is alive, or found dead by others.
        with suppress(Exception):
            await self._call()
