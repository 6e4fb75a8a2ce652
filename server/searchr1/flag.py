"""A flag that tasks wait for: ``asyncio.Event`` in a tenth of its memory, as each stream holds some."""

import asyncio
from contextlib import suppress


class Flag:
    """A flag, not set at first. It may be made where no event loop runs."""

    __slots__ = ("_is_set", "_waiters")

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[asyncio.Future[None]] = []

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Set it, and wake whoever waits, even if it is cleared at once."""
        self._is_set = True
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Have whoever waits from now on wait for the next ``set``."""
        self._is_set = False

    async def wait(self) -> None:
        """Return once it is set."""
        if self._is_set:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            with suppress(ValueError):  # It may have been set at the same moment.
                self._waiters.remove(waiter)
            raise
