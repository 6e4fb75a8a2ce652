"""Single flight in this process: one call for all who ask for the same thing at the same time."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from searchr1.retrieval.deadline import Deadline

T = TypeVar("T")


class SharedCall(Generic[T]):
    """A call under way. Its task gives ``answer`` its result as soon as there is one, and may have more to do then."""

    def __init__(self, deadline: Deadline) -> None:
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.deadline = deadline
        self.task: asyncio.Task[None] | None = None
        self.waiters = 0


Run = Callable[[SharedCall[T]], Coroutine[Any, Any, None]]


class SingleFlight(Generic[T]):
    """The calls under way, by key. A call outlives who started it for as long as anybody waits for its answer."""

    def __init__(self) -> None:
        self._calls: dict[str, SharedCall[T]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def join(self, key: str, deadline: Deadline, run: Run[T]) -> tuple[SharedCall[T], bool]:
        """Return the call of ``key``, and whether it starts now, as ``run``, to be over at ``deadline``."""
        if (call := self._calls.get(key)) is not None:
            return call, False
        call = self._calls[key] = SharedCall(deadline)
        call.task = asyncio.create_task(self._run(key, call, run))
        self._tasks.add(call.task)
        call.task.add_done_callback(self._tasks.discard)
        return call, True

    async def wait(self, key: str, call: SharedCall[T], timeout_s: float) -> T | None:
        """Return the answer of ``call``, None if there is none within ``timeout_s``; an exception of it is raised."""
        call.waiters += 1
        try:
            await asyncio.wait((call.answer,), timeout=_bound_s(timeout_s))
            answered = call.answer.done() and not call.answer.cancelled()
            return call.answer.result() if answered else None
        finally:
            call.waiters -= 1
            if call.waiters == 0 and not call.answer.done():
                self.forget(key, call)
                assert call.task is not None
                call.task.cancel()

    async def end(self, call: SharedCall[T], timeout_s: float) -> None:
        """Wait until ``call`` has done what it does after its answer, or ``timeout_s`` have passed."""
        assert call.task is not None
        await asyncio.wait((call.task,), timeout=_bound_s(timeout_s))

    def forget(self, key: str, call: SharedCall[T]) -> None:
        """Let nobody join ``call`` any more."""
        if self._calls.get(key) is call:
            del self._calls[key]

    async def aclose(self) -> None:
        """Cancel the calls without an answer; wait for the others to end."""
        for call in self._calls.values():
            if call.task is not None and not call.answer.done():
                call.task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: str, call: SharedCall[T], run: Run[T]) -> None:
        try:
            await run(call)
        except Exception as error:
            if call.answer.done():
                raise
            call.answer.set_exception(error)
        finally:
            call.answer.cancel()
            self.forget(key, call)


def _bound_s(timeout_s: float) -> float | None:
    return max(timeout_s, 0.0) if math.isfinite(timeout_s) else None
