"""``RunHandle``: the interface to one run, wherever it goes on."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import aclosing

from searchr1.gateway.runs.store.base import RunMeta
from searchr1_client.events import KnownEvent, Run


class RunHandle(ABC):
    """One run: a ``LiveRun`` of this process, or a ``StoredRun`` that has ended or goes on on another replica."""

    @property
    @abstractmethod
    def meta(self) -> RunMeta:
        """The run's identity and request, apart from its events."""

    @property
    def goes_on_elsewhere(self) -> bool:
        """True where its streams end here without its end, and can be taken up on another replica."""
        return False

    @abstractmethod
    def batches(self, after: int = -1) -> AsyncGenerator[list[KnownEvent], None]:
        """Yield the events with a ``seq`` above ``after`` as they come, several at once where they have piled up.

        Ends after the terminal event, or without one where the store does not answer for long.
        """

    @abstractmethod
    def frames(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """Yield what ``batches`` yields, encoded as Server-Sent Events."""

    @abstractmethod
    async def cancel(self) -> None:
        """Have the run end; return when it has, or after a short wait where it goes on on another replica.

        Raises:
            RunsUnreachableError: the run goes on on another replica, and the store does not answer.
        """

    @abstractmethod
    async def run(self) -> Run:
        """Return the run as it stands, with its trajectory once it has ended.

        Raises:
            RunsUnreachableError: the run is not this process's, and the store does not answer.
        """

    async def to_end(self) -> Run:
        """Read the run's events to their end and return the run. Raises as ``run`` does."""
        async with aclosing(self.batches()) as batches:
            async for _ in batches:
                pass
        return await self.run()
