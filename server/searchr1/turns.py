"""Whose turn it is on the engine: the driver asks before each completion of a run, and tells how each ends."""

from typing import Protocol


class Turns(Protocol):
    """The turns of one run.

    At a minimum, every turn begins at once::

        class Unbounded:
            async def begin(self, num_ids):
                return 0

            def end(self, num_ids): ...

            async def lost(self, num_ids): ...
    """

    async def begin(self, num_ids: int) -> int:
        """Return when the run may have its next completion, whose prompt has ``num_ids``, with its priority.

        Engines run lower priorities first.
        """
        ...

    def end(self, num_ids: int) -> None:
        """Take the end of a completion, which is no end of the run; prompt and completion have ``num_ids``."""
        ...

    async def lost(self, num_ids: int) -> None:
        """Return when a completion that broke off at ``num_ids`` may be asked for again."""
        ...


class AtOnce(Turns):
    """Turns that all begin at once.

    Args:
        later_first: later turns of any run go before earlier ones, which keeps their prefixes in the engine's cache.
    """

    def __init__(self, *, later_first: bool) -> None:
        self._later_first = later_first
        self._turn = 0

    async def begin(self, num_ids: int) -> int:
        """See ``Turns``."""
        self._turn += 1
        return -self._turn if self._later_first else 0

    def end(self, num_ids: int) -> None:
        """See ``Turns``."""

    async def lost(self, num_ids: int) -> None:
        """See ``Turns``."""
