"""One call for all who ask for the same thing at the same time, in this process."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from searchr1.retrieval.deadline import Deadline

T = TypeVar("T")


class Flight(Generic[T]):
    """A call under way. Its task gives ``answer`` its result as soon as there is one, and may have more to do then."""

    def __init__(self, deadline: Deadline) -> None:
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.waiters = 0


class Flights(Generic[T]):
    """The flights under way, by key. A flight outlives who started it for as long as anybody waits for its answer."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(
        self, key: str, deadline: Deadline, fly: Callable[[Flight[T]], Coroutine[Any, Any, None]]
    ) -> tuple[Flight[T], bool]:
        """Return the flight of ``key``, and whether it starts now, with ``fly``, to be over at ``deadline``."""
        if (flight := self._flights.get(key)) is not None:
            return flight, False
        flight = self._flights[key] = Flight(deadline)
        flight.task = asyncio.create_task(self._run(key, flight, fly))
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._tasks.discard)
        return flight, True

    async def wait(self, key: str, flight: Flight[T], timeout_s: float) -> T | None:
        """Return the answer of ``flight``, None if there is none within ``timeout_s``; an exception of it is raised."""
        flight.waiters += 1
        try:
            await asyncio.wait((flight.answer,), timeout=_bound_s(timeout_s))
            answered = flight.answer.done() and not flight.answer.cancelled()
            return flight.answer.result() if answered else None
        finally:
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.answer.done():
                self.forget(key, flight)
                assert flight.task is not None
                flight.task.cancel()

    async def end(self, flight: Flight[T], timeout_s: float) -> None:
        """Wait until ``flight`` has done what it does after its answer, or ``timeout_s`` have passed."""
        assert flight.task is not None
        await asyncio.wait((flight.task,), timeout=_bound_s(timeout_s))

    def forget(self, key: str, flight: Flight[T]) -> None:
        """Let nobody join ``flight`` any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def aclose(self) -> None:
        """Cancel the flights without an answer; wait for the others to end."""
        for flight in self._flights.values():
            if flight.task is not None and not flight.answer.done():
                flight.task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: str, flight: Flight[T], fly: Callable[[Flight[T]], Coroutine[Any, Any, None]]) -> None:
        try:
            await fly(flight)
        except Exception as error:
            if flight.answer.done():
                raise
            flight.answer.set_exception(error)
        finally:
            flight.answer.cancel()
            self.forget(key, flight)


def _bound_s(timeout_s: float) -> float | None:
    return max(timeout_s, 0.0) if math.isfinite(timeout_s) else None
