"""A run of this process: its task writes events, and any number of readers follow them."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress

from searchr1.flag import Flag
from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.errors import RunsUnreachableError
from searchr1.gateway.runs.event_log import EventLog
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.journal import Journal
from searchr1.gateway.runs.patience import Patience
from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta
from searchr1.gateway.sse import MOVED
from searchr1_client.events import TERMINAL_TYPES, KnownEvent, Run, RunFailed

logger = logging.getLogger(__name__)

_STORED_WITHIN_S = 0.25
"""Seconds that readers wait for an event to be stored, where the store is slow."""
_END_STORED_WITHIN_S = 0.5
"""Seconds that readers wait for a run's end to be stored, from the terminal event on."""
_READ_ELSEWHERE_S = 3.0
"""Seconds that one message of a reader on another replica counts; such readers send one a second."""


class LiveRun(RunHandle):
    """The ``RunHandle`` of a run of this process.

    A run with a ``journal`` may be taken over by another replica. Its readers see events once these are stored, so that
    what they saw is what the other replica goes on from. The end of any run that ``is_shared`` is seen once it is
    stored as a whole, so that whoever saw it finds a run that has ended on every replica. Where the store is slow or
    fails, readers see events and end all the same.

    Args:
        meta: the run's identity.
        drive: what drives it.
        leave_s: how long it goes on when its last reader has left; None: to its end.
        journal: what another replica needs to take the run over, beside ``plan``.
        plan: how the run was to be driven.
        past: events of an owner before, and their JSON.
        is_shared: whether other replicas are to find the run in the store.
    """

    def __init__(
        self,
        meta: RunMeta,
        drive: RunDrive,
        *,
        leave_s: float | None,
        journal: Journal | None = None,
        plan: bytes | None = None,
        past: Sequence[tuple[KnownEvent, bytes]] = (),
        is_shared: bool = False,
    ) -> None:
        self._meta = meta
        self.plan = plan
        self.is_lost = False
        """True once another replica owns the run."""
        self.is_leaving = False
        """True while the run, which is driven here no more, is to be passed on to another replica."""
        self.was_taken_over = False
        """True for a run that the store has from an owner before."""
        self.ended = False
        self.driven = Flag()
        """Set once the run is driven no more."""
        self.closed = Flag()
        """Set once nothing of the run is written any more."""
        self.kept = False
        """True while the run is to be stored."""
        self._drive = drive
        self._leave_s = leave_s
        self._journal = journal
        self._events = EventLog(created=meta.created, past=past)
        self._num_stored = len(self._events)
        self._batch: tuple[list[LoggedEvent], list[bytes]] | None = None
        """What was sent to the store, until it is known to have it."""
        self._is_shared = is_shared
        self._waits_for_store = is_shared and journal is not None
        """True while readers see only what the store has: another replica may go on from there."""
        self._holds_end = is_shared
        """True while readers do not see the end: another replica may be asked to follow the run up."""
        self._has_end = bool(past) and past[-1][0].type in TERMINAL_TYPES
        self._ending: Patience | None = None
        self._unstored = Flag()
        self._num_readers = 0
        self._changed = Flag()
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
    def may_leave(self) -> bool:
        """True for a run that another replica could go on with now."""
        is_driven = self._driving is None or not self._driving.done()
        is_open = is_driven and not (self.ended or self._end_wanted or self.is_leaving)
        return is_open and self.kept and self._journal is not None

    @property
    def may_be_passed_on(self) -> bool:
        """False for a run that is leaving and was cancelled or forgotten meanwhile: it ends here."""
        return self.kept and not self._end_wanted

    @property
    def is_read(self) -> bool:
        """True while somebody reads it here."""
        return self._num_readers > 0

    @property
    def goes_on_elsewhere(self) -> bool:
        """See ``RunHandle.goes_on_elsewhere``."""
        return self.is_lost

    @property
    def _num_visible(self) -> int:
        """Number of events that readers may see."""
        num_shown = self._num_stored if self._waits_for_store else len(self._events)
        return min(num_shown, len(self._events) - (self._has_end and self._holds_end))

    @property
    def outlives_readers(self) -> bool:
        """True for a run that goes on when nobody reads it."""
        return self._leave_s is None

    async def drive_to_end(self) -> None:
        """Drive the run; returns once its terminal event is there, however it comes about."""
        self._driving = asyncio.ensure_future(self._drive_events())
        if self._has_end:
            self._await_end_stored()
        if self._end_wanted or self.is_leaving:
            self._driving.cancel()
        try:
            await asyncio.wait((self._driving,))
            self._conclude(self._driving)
        finally:
            self._driving.cancel()
            self.ended = True
            self.driven.set()
            self._unstored.set()
            self._changed.set()

    def end(self) -> None:
        """Have the run end as cancelled. Does nothing for one that has ended."""
        # A second cancellation would break off what the first one cleans up.
        if self._driving is not None and not (self._end_wanted or self.is_leaving):
            self._driving.cancel()
        self._end_wanted = True

    def leave(self) -> bool:
        """Stop driving the run, without an end, so that another replica can go on with it; False where it ends here."""
        if not (self.may_leave and self._drive.leave()):
            return False
        self.is_leaving = True
        if self._driving is not None:
            self._driving.cancel()
        return True

    def stop_here(self) -> None:
        """Have a run that was leaving end: as cancelled where that is wanted, else as failed: no other one took it."""
        if not self._events:
            self._add(self._drive.started())
        self._add(self._drive.failed("stopping") if self.may_be_passed_on else self._drive.cancelled())
        self._stay()
        self._unstored.set()
        self._changed.set()

    def lose(self) -> None:
        """Stop, since another replica goes on with the run: readers see nothing more of it here."""
        self.is_lost, self.kept = True, False
        self._drive.moved()
        self.end()
        self._changed.set()

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
        if self.is_lost:
            yield MOVED

    async def _follow(self, after: int) -> AsyncGenerator[tuple[int, int], None]:
        """Yield spans of ``_events`` that are new to this reader, as (start, end)."""
        at = after + 1
        self._num_readers += 1
        try:
            while True:
                if at < (end := self._num_visible):
                    start, at = at, end
                    yield start, end
                elif self.is_lost or (self.ended and not self.is_leaving and end == len(self._events)):
                    return
                else:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._num_readers -= 1
            self._maybe_leave()

    def await_reader(self) -> None:
        """Have a run that was taken over end as if its last reader had just left, unless one comes."""
        self._maybe_leave()

    def read_elsewhere(self) -> None:
        """Note a reader on another replica: the run goes on for at least as long as the next message may take."""
        self._read_elsewhere_until = asyncio.get_running_loop().time() + _READ_ELSEWHERE_S
        self._maybe_leave()

    async def stillborn(self, at_most_s: float) -> RunFailed | None:
        """Wait until the run has given more than its start, at most so long; return its failure if that is all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while self._num_visible < 2 and not (self.ended or self.is_lost):
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
        while self._has_end and self._holds_end and not self.is_lost:
            self._changed.clear()
            await self._changed.wait()
        if self.is_lost:
            raise RunsUnreachableError("The run went on on another server; ask for it again.")
        return self.record() if self.ended and not self.is_leaving else self._events.so_far()

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

    def next_batch(self) -> tuple[list[LoggedEvent], list[bytes]]:
        """Return events that the store does not have, and lines of the journal.

        They are the same ones until the store is known to have them: an answer may have been lost.
        """
        if self._batch is None and (events := self.unstored()):
            self._batch = events, [] if self._journal is None else self._journal.unstored()
        return self._batch or ([], [])

    def mark_stored(self, events: Sequence[LoggedEvent], inputs: Sequence[bytes]) -> None:
        """Note that the store has these events and lines."""
        self._num_stored += len(events)
        self._batch = None
        if self._is_shared and not self._has_end:  # Whoever was shown the end sees no less again.
            self._waits_for_store, self._holds_end = self._journal is not None, True
        if self._journal is not None:
            self._journal.mark_stored(inputs)
            self._changed.set()

    def mark_unstored(self) -> None:
        """Note that the store has lost all events."""
        self.wait_no_longer()
        self._num_stored, self._batch = 0, None
        if self._journal is not None:
            self._journal.mark_unstored()

    def wait_no_longer(self) -> None:
        """Let readers see what is not stored: all of it is, or the store fails, and nobody must stand still for it."""
        if self._ending is not None:
            self._ending.end()
            self._ending = None
        if not self.is_lost:
            self._waits_for_store = self._holds_end = False
            self._changed.set()

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Let readers see what is not stored yet where the block, which stores something, lasts too long.

        The end has a time of its own.
        """
        patience = Patience(_STORED_WITHIN_S, self._wait_for_the_end_alone)
        if self._waits_for_store:
            patience.begin()
        try:
            yield
        finally:
            patience.end()

    def _wait_for_the_end_alone(self) -> None:
        if not self.is_lost:
            self._waits_for_store = False
            self._changed.set()

    async def news(self, every_s: float) -> None:
        """Wait for events to store: a journaled run for the next one, another one for so long, or for its end."""
        if self._journal is None:
            await self.wait_ended(every_s)
            return
        if self._num_stored < len(self._events) or self.ended:
            await asyncio.sleep(0)
            return
        self._unstored.clear()
        await self._unstored.wait()

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
        if self.is_lost:
            return
        has_ended = bool(self._events) and self._events[-1].type in TERMINAL_TYPES
        if self.is_leaving and driven.cancelled() and not has_ended:
            return
        if not self._events:
            self._add(self._drive.started())
        if not has_ended:
            self._add(self._drive.cancelled() if driven.cancelled() else self._drive.failed())
        if self.is_leaving:  # It came to an end before it could.
            self._stay()

    def _stay(self) -> None:
        self.is_leaving = False
        self._drive.stayed()

    def _add(self, event: KnownEvent) -> None:
        self._events.append(event)
        if event.type in TERMINAL_TYPES:
            self._has_end = True
            self._await_end_stored()
        if self._journal is not None:
            self._unstored.set()
        if not self._waits_for_store:
            self._changed.set()

    def _await_end_stored(self) -> None:
        if self._holds_end and self._ending is None:
            self._ending = Patience(_END_STORED_WITHIN_S, self.wait_no_longer)
            self._ending.begin()

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
