"""A run of this process: its task writes events, and any number of readers follow them."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.event_log import EventLog
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta
from searchr1_client.events import TERMINAL_TYPES, KnownEvent, Run, RunFailed

logger = logging.getLogger(__name__)

_READ_ELSEWHERE_S = 3.0
"""Seconds that one message of a reader on another replica counts; such readers send one a second."""


class LiveRun(RunHandle):
    """The ``RunHandle`` of a run of this process.

    ``leave_s`` is how long it goes on when its last reader has left; None: to its end.
    """

    def __init__(self, meta: RunMeta, drive: RunDrive, *, leave_s: float | None) -> None:
        self._meta = meta
        self.ended = False
        self.closed = asyncio.Event()
        """Set once nothing of the run is written any more."""
        self.kept = False
        """True while the run is to be stored."""
        self._drive = drive
        self._leave_s = leave_s
        self._events = EventLog(created=meta.created)
        self._num_stored = 0
        self._num_readers = 0
        self._changed = asyncio.Event()
        self._driving: asyncio.Task[None] | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._read_elsewhere_until = 0.0
        """By the event loop's clock."""
        self._end_wanted = False
        self._record: Run | None = None

    @property
    def meta(self) -> RunMeta:
        """See ``RunHandle.meta``."""
        return self._meta

    @property
    def outlives_readers(self) -> bool:
        """True for a run that goes on when nobody reads it."""
        return self._leave_s is None

    async def drive_to_end(self) -> None:
        """Drive the run; returns once its terminal event is there, however it comes about."""
        self._driving = asyncio.ensure_future(self._drive_events())
        if self._end_wanted:
            self._driving.cancel()
        try:
            await asyncio.wait((self._driving,))
            self._conclude(self._driving)
        finally:
            self._driving.cancel()
            self.ended = True
            self._changed.set()

    def end(self) -> None:
        """Have the run end as cancelled. Does nothing for one that has ended."""
        # A second cancellation would break off what the first one cleans up.
        if self._driving is not None and not self._end_wanted:
            self._driving.cancel()
        self._end_wanted = True

    async def batches(self, after: int = -1) -> AsyncGenerator[list[KnownEvent], None]:
        """See ``RunHandle.batches``."""
        async with aclosing(self._follow(after)) as spans:
            async for start, end in spans:
                yield self._events[start:end]

    async def frames(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """See ``RunHandle.frames``."""
        async with aclosing(self._follow(after)) as spans:
            async for start, end in spans:
                yield self._events.frames(start, end)

    async def _follow(self, after: int) -> AsyncGenerator[tuple[int, int], None]:
        """Yield spans of ``_events`` that are new to this reader, as (start, end)."""
        at = after + 1
        self._num_readers += 1
        try:
            while True:
                if at < (end := len(self._events)):
                    start, at = at, end
                    yield start, end
                elif self.ended:
                    return
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._num_readers -= 1
            self._maybe_leave()

    def read_elsewhere(self) -> None:
        """Note a reader on another replica: the run goes on for at least as long as the next message may take."""
        self._read_elsewhere_until = asyncio.get_running_loop().time() + _READ_ELSEWHERE_S
        self._maybe_leave()

    async def stillborn(self, at_most_s: float) -> RunFailed | None:
        """Wait until the run has given more than its start, at most so long; return its failure if that is all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while len(self._events) < 2 and not self.ended:
                    self._changed.clear()
                    await self._changed.wait()
        second = self._events[1] if len(self._events) > 1 else None
        return second if isinstance(second, RunFailed) else None

    async def cancel(self) -> None:
        """See ``RunHandle.cancel``."""
        self.end()
        async with aclosing(self.batches(len(self._events) - 1)) as batches:
            async for _ in batches:
                pass

    async def run(self) -> Run:
        """See ``RunHandle.run``."""
        return self.record() if self.ended else self._events.so_far()

    def record(self) -> Run:
        """Return the whole run. Call it only once it has ended."""
        if self._record is None:
            run = self._events.run()
            self._record = run.model_copy(update={"trajectory": self._drive.trajectory(run.usage)})
        return self._record

    def unstored(self) -> list[LoggedEvent]:
        """Return the events that the store does not have."""
        first = self._num_stored
        return [LoggedEvent(first + i, data) for i, data in enumerate(self._events.data[first:])]

    def mark_stored(self, events: list[LoggedEvent]) -> None:
        """Note that the store has these events."""
        self._num_stored += len(events)

    def mark_unstored(self) -> None:
        """Note that the store has lost all events."""
        self._num_stored = 0

    async def wait_ended(self, at_most_s: float) -> None:
        """Wait for the run's end, at most so long."""
        if not self.ended and self._driving is not None:
            await asyncio.wait((self._driving,), timeout=at_most_s)
        else:
            await asyncio.sleep(0)

    async def _drive_events(self) -> None:
        async with aclosing(self._drive.events()) as events:
            async for event in events:
                self._add(event)

    def _conclude(self, driven: asyncio.Task[None]) -> None:
        """Have the log begin with the first event and end in one terminal event, wherever the run was cut."""
        error = None if driven.cancelled() else driven.exception()
        if error is not None:
            logger.error("run %s failed by an error of the server's own", self.meta.id, exc_info=error)
        if not self._events:
            self._add(self._drive.started())
        if self._events[-1].type not in TERMINAL_TYPES:
            self._add(self._drive.cancelled() if driven.cancelled() else self._drive.failed())

    def _add(self, event: KnownEvent) -> None:
        self._events.append(event)
        self._changed.set()

    def _maybe_leave(self) -> None:
        """Plan the end of a run that nobody reads any more."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._num_readers == 0 and not self.ended and self._leave_s is not None:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_at(max(loop.time() + self._leave_s, self._read_elsewhere_until), self._leave)

    def _leave(self) -> None:
        if self._num_readers == 0:
            self.end()
