"""A run's deadline: it ends what is awaited, and never the time that a consumer takes for itself."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class DeadlinePassedError(Exception):
    """The deadline passed while something was awaited."""


class Deadline:
    """A point in time, ``deadline_s`` seconds from now; None: there is none. Create it where an event loop runs."""

    def __init__(self, deadline_s: float | None) -> None:
        self.loop = asyncio.get_running_loop()
        self.ends_at = None if deadline_s is None else self.loop.time() + deadline_s
        """Of the loop's clock."""

    def remaining_s(self) -> float:
        """Return the seconds left, never negative; infinite without a deadline."""
        return float("inf") if self.ends_at is None else max(0.0, self.ends_at - self.loop.time())

    async def bound(self, begin: Callable[[], Awaitable[T]]) -> T:
        """Begin something and await it until the deadline.

        Raises:
            DeadlinePassedError: the deadline passed.
        """
        if self.ends_at is None:
            return await begin()
        if self.remaining_s() == 0:  # The scope alone would let through what is ready at once.
            raise DeadlinePassedError
        scope = asyncio.timeout_at(self.ends_at)
        try:
            async with scope:
                return await begin()
        except TimeoutError as error:
            if scope.expired():
                raise DeadlinePassedError from error
            raise

    def reading(self) -> "BoundedReading":
        """Return a context in which items of a stream are awaited, for less than ``bound`` costs."""
        return BoundedReading(self)


class BoundedReading:
    """Awaits items until a deadline, with one timer for all of them where ``Deadline.bound`` sets one for each."""

    def __init__(self, deadline: Deadline) -> None:
        self._loop, self._ends_at = deadline.loop, deadline.ends_at
        self._timer: asyncio.TimerHandle | None = None
        self._has_passed = False
        self._waiting: asyncio.Task[object] | None = None
        self._cancelling_before: int | None = None
        """Requests to cancel the waiting task before our own; None where we have made none."""

    def __enter__(self) -> Self:
        if self._ends_at is not None:
            self._has_passed = self._ends_at <= self._loop.time()
            self._timer = self._loop.call_at(self._ends_at, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    async def next(self, items: AsyncGenerator[T, None]) -> T | None:
        """Return the next item, or None at the end. Each may be awaited by another task.

        Raises:
            DeadlinePassedError: the deadline passed before it came.
        """
        if self._has_passed:
            raise DeadlinePassedError
        self._waiting = task = asyncio.current_task(self._loop)
        try:
            return await anext(items, None)
        except asyncio.CancelledError as error:
            if self._takes_back_cancel(task):
                raise DeadlinePassedError from error
            raise
        finally:
            self._waiting = None
            self._takes_back_cancel(task)

    def _pass(self) -> None:
        self._has_passed = True
        if self._waiting is not None:
            self._cancelling_before = self._waiting.cancelling()
            self._waiting.cancel()

    def _takes_back_cancel(self, task: asyncio.Task[object] | None) -> bool:
        """Withdraw our own request to cancel the task, if there is one; tell whether nobody else has made one."""
        before, self._cancelling_before = self._cancelling_before, None
        return before is not None and task is not None and task.uncancel() <= before
