"""A guard around a byte store on the network, so that its outages hold no search up."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from searchr1.redis_client import Outages
from searchr1.retrieval.cache.store import ByteStore, StoreError, StoreRefusedError

logger = logging.getLogger(__name__)
T = TypeVar("T")


class _Operation(Generic[T]):
    """One operation on the store; it runs in a task, which goes on when nobody waits for it any more."""

    def __init__(self, name: str, call: Callable[[], Awaitable[T]], asked_at_s: float, probes: bool) -> None:
        self.name, self.call, self.asked_at_s, self.probes = name, call, asked_at_s, probes
        self.started_at_s: float | None = None
        self.task: asyncio.Task[T]


class GuardedStore:
    """A ``ByteStore`` that answers, or raises ``StoreError``, within ``timeout_s``.

    After an operation that was late or failed, ``inner`` is not asked for ``cooldown_s``; then one operation probes it
    while the others are still turned away. A late operation may go on unseen for ``late_timeout_s``, so that a
    connection that takes longer than ``timeout_s`` to be made is there for the next one. At most ``max_concurrent`` run
    at once. One that finds no place in time is turned away, which says nothing of ``inner``; nor does a refusal of it.
    """

    def __init__(
        self,
        inner: ByteStore,
        *,
        timeout_s: float = 0.05,
        cooldown_s: float = 1.0,
        late_timeout_s: float = 2.0,
        max_concurrent: int = 8,
    ) -> None:
        self._inner = inner
        self._timeout_s, self._cooldown_s, self._late_timeout_s = timeout_s, cooldown_s, late_timeout_s
        self._slots = asyncio.Semaphore(max_concurrent)
        self._cooldown_ends_s: float | None = None
        self._probing = False
        self._running: set[asyncio.Task[Any]] = set()
        self._reads: dict[str, _Operation[bytes | None]] = {}
        self._outages = Outages("The search cache", logger)

    async def get(self, key: str) -> bytes | None:
        """See ``ByteStore.get``. The value may be one that was read a moment before the call."""
        operation = self._reads.get(key)
        if operation is None or self._cooldown_ends_s is not None:
            operation = self._reads[key] = self._start("get", lambda: self._inner.get(key))
        try:
            return await self._wait(operation)
        finally:
            if self._reads.get(key) is operation:
                del self._reads[key]

    async def get_now(self, key: str) -> bytes | None:
        """Return the value that ``key`` has after the call; otherwise like ``get``."""
        return await self._wait(self._start("get", lambda: self._inner.get(key)))

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        """See ``ByteStore.set``."""
        await self._wait(self._start("set", lambda: self._inner.set(key, value, ttl_s)))

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        """See ``ByteStore.claim``."""
        return await self._wait(self._start("claim", lambda: self._inner.claim(key, token, ttl_s)))

    async def release(self, key: str, token: str) -> None:
        """See ``ByteStore.release``."""
        await self._wait(self._start("release", lambda: self._inner.release(key, token)))

    async def aclose(self) -> None:
        """End the late operations. ``inner`` stays open."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, name: str, call: Callable[[], Awaitable[T]]) -> _Operation[T]:
        operation = _Operation(name, call, _now_s(), self._allow())
        operation.task = asyncio.create_task(self._run(operation))
        self._running.add(operation.task)
        operation.task.add_done_callback(self._forget)
        return operation

    def _allow(self) -> bool:
        """Tell whether the operation is the probe; raise ``StoreError`` if it may not run."""
        if self._cooldown_ends_s is None:
            return False
        if self._probing or _now_s() < self._cooldown_ends_s:
            raise StoreError("the store did not answer a moment ago")
        self._probing = True
        return True

    async def _run(self, operation: _Operation[T]) -> T:
        async with self._slots:
            is_too_late = _now_s() - operation.asked_at_s > self._timeout_s
            if not operation.probes and (is_too_late or self._cooldown_ends_s is not None):
                raise StoreError("the store was too busy, or did not answer a moment ago")
            operation.started_at_s = _now_s()
            async with asyncio.timeout(self._late_timeout_s):
                return await operation.call()

    async def _wait(self, operation: _Operation[T]) -> T:
        try:
            await asyncio.wait((operation.task,), timeout=self._timeout_s)
            return self._result(operation)
        finally:
            if operation.probes:
                self._probing = False

    def _result(self, operation: _Operation[T]) -> T:
        if not operation.task.done():
            self._cool_down(operation)
            raise StoreError(f"the store did not answer within {self._timeout_s:g} s")
        try:
            result = operation.task.result()
        except StoreRefusedError as error:
            self._outages.failed(operation.name, str(error))
            self._recover(operation)
            raise
        except (StoreError, TimeoutError) as error:
            if operation.started_at_s is not None:
                self._outages.failed(operation.name, str(error) or "it did not answer")
            self._cool_down(operation)
            raise StoreError(str(error) or "the store did not answer") from error
        self._outages.worked(operation.name)
        self._recover(operation)
        return result

    def _cool_down(self, operation: _Operation[Any]) -> None:
        started_at_s = operation.started_at_s
        if operation.probes or (started_at_s is not None and (operation.task.done() or self._is_late(started_at_s))):
            self._cooldown_ends_s = _now_s() + self._cooldown_s

    def _is_late(self, started_at_s: float) -> bool:
        """Tell whether an operation had at least half of its time, and did not spend it waiting for a place."""
        return _now_s() - started_at_s >= self._timeout_s / 2

    def _recover(self, operation: _Operation[Any]) -> None:
        if operation.probes:
            self._cooldown_ends_s = None

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # so that asyncio does not report what nobody waits for any more


def _now_s() -> float:
    return asyncio.get_running_loop().time()
