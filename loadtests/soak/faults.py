"""The faults, one at a time, and the times in which one may still be felt."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import aiohttp

from loadtests.soak.stack import Program, Stack
from tests.engines.vllm.fake_vllm import Fault
from tests.support.redis_server import RedisServer

Break = Callable[[Stack], Awaitable[None]]
"""Breaks something and mends it."""
BUSY = "engine late by itself"
FELT_S = 8.0
"""After a fault has been mended: time for probes, breakers and retries to find that out."""
STALLED = "engine stalls in mid-stream"
_STALLED_RUNS_LAST_S = 20.0
"""Runs whose stream stands still hold their slots until their deadline (``stack.py``)."""
_LATE_S = 1.5
"""For an answer of the engine's; the gateway waits twice as long."""


@dataclass
class Troubles:
    """When which fault was there."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)
    """Name, beginning and end, by the monotonic clock; the end is infinite while it lasts."""

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Note that a fault is there while the block runs."""
        number, began = len(self.spans), time.monotonic()
        self.spans.append((name, began, float("inf")))
        try:
            yield
        finally:
            self.spans[number] = (name, began, time.monotonic())

    def names_felt(self, since: float, until: float) -> list[str]:
        """Return the faults that something which lasted from ``since`` to ``until`` may have felt."""
        return [name for name, began, ended in self.spans if began <= until and since <= ended + _felt_s(name)]

    async def watch_engine(self, url: str) -> None:
        """Ask the engine itself each second until cancelled, and note it as a trouble where it answers late.

        On a machine that others use too, it may be kept waiting without any fault of ours. A stopped or dead engine is
        noted as well, within the fault that did it.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            while True:
                asked = asyncio.ensure_future(self._ask(http, url))
                try:
                    if not (await asyncio.wait({asked}, timeout=_LATE_S))[0]:
                        with self.during(BUSY):
                            await asyncio.wait({asked})
                finally:
                    asked.cancel()
                await asyncio.sleep(1)

    async def _ask(self, http: aiohttp.ClientSession, url: str) -> None:
        with suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(url) as response:
                await response.read()

    @property
    def num_busy(self) -> int:
        """How often the engine was late by itself: while no fault was there."""
        faults = [(began, ended) for name, began, ended in self.spans if name != BUSY]
        late = [began for name, began, _ in self.spans if name == BUSY]
        return sum(not any(began - FELT_S <= at <= ended + FELT_S for began, ended in faults) for at in late)


def _felt_s(name: str) -> float:
    return _STALLED_RUNS_LAST_S if name == STALLED else FELT_S


def _engine_has(fault: Fault, seconds: float) -> Break:
    async def do(stack: Stack) -> None:
        stack.set_engine_fault(fault)
        try:
            await asyncio.sleep(seconds)
        finally:
            stack.set_engine_fault(None)

    return do


def _stopped(seconds: float, which: Callable[[Stack], Program | RedisServer]) -> Break:
    async def do(stack: Stack) -> None:
        which(stack).send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            which(stack).send(signal.SIGCONT)

    return do


def _killed(seconds: float, which: Callable[[Stack], Program | RedisServer]) -> Break:
    async def do(stack: Stack) -> None:
        await asyncio.to_thread(which(stack).kill)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(which(stack).start)

    return do


FAULTS: dict[str, Break] = {
    "engine killed": _killed(3, lambda stack: stack.engine),
    "Redis killed, empty after": _killed(3, lambda stack: stack.redis),
    "Redis paused": _stopped(8, lambda stack: stack.redis),
    "engine hung": _stopped(12, lambda stack: stack.engine),
    "retriever down": _killed(4, lambda stack: stack.retriever),
    "engine answers 500": _engine_has(Fault.REFUSE_BROKEN, 6),
    "engine cuts streams": _engine_has(Fault.DROP, 6),
    "engine answers 503": _engine_has(Fault.REFUSE_BUSY, 6),
    "retriever hung": _stopped(10, lambda stack: stack.retriever),
    "engine pauses": _stopped(2, lambda stack: stack.engine),
    STALLED: _engine_has(Fault.STALL, 8),
    "engine sends garbage": _engine_has(Fault.GARBAGE, 6),
    "engine busy in stream": _engine_has(Fault.BUSY_IN_STREAM, 6),
    "engine ends unfinished": _engine_has(Fault.UNFINISHED, 6),
}
"""By name, in the order in which they come."""
