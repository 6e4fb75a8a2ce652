"""A run read from the store: one that has ended, or one that goes on on another replica."""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, cast

from pydantic import ValidationError

from searchr1.gateway.failures import run_failure
from searchr1.gateway.runs.errors import RunsUnreachableError
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.store.base import (
    HANDED_OVER,
    Command,
    LoggedEvent,
    Note,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    RunUnreadableError,
    ignore,
)
from searchr1.gateway.runs.takeover import WAITING, Waiting
from searchr1.gateway.sse import encode_event
from searchr1_client.events import (
    TERMINAL_TYPES,
    KnownEvent,
    Run,
    RunFailed,
    RunStarted,
    Usage,
    WireError,
    parse_event,
)
from searchr1_client.fold import RunFold

_WAIT_S = 1.0
"""Seconds that one read of the log waits for an event."""
_TIMEOUT_S = 10.0
"""Seconds after which a reader gives up a store that does not answer, and a cancel stops waiting for the owner."""
_LOST_S = 2.0
"""A reader declares the owner dead after this long without a heartbeat, in addition to the lease."""
_POLL_S = 0.05
_RECORD_WITHIN_S = 0.5
"""Seconds that are waited for the record of a run whose log is whole: its owner is about to store it."""
TakeOver = Callable[[RunMeta], Awaitable[RunHandle | Waiting | None]]
"""See ``Takeovers.take``."""
_POLLS_PER_MESSAGE = 20


class StoredRun(RunHandle):
    """The ``RunHandle`` of a run in the store. Its owner, if there still is one, gets messages through the store."""

    def __init__(
        self, state: RunState, store: RunStore, note: Note = ignore, take_over: TakeOver | None = None
    ) -> None:
        """``note`` is told where a stream has to end because the rest of it can't be read.

        ``take_over`` has the run go on here when its owner is gone.
        """
        self._state, self._store, self._note = state, store, note
        self._take_over = take_over
        self._owner = state.meta.replica
        self._message_due_s = 0.0

    @property
    def meta(self) -> RunMeta:
        """See ``RunHandle.meta``."""
        return self._state.meta

    async def batches(self, after: int = -1) -> AsyncGenerator[list[KnownEvent], None]:
        """See ``RunHandle.batches``. The run of an owner that is gone goes on here or on another replica.

        Where it can't, it ends as failed, and so does one damaged here.
        """
        silent_s = lost_s = 0.0
        while True:
            try:
                batch = await self._next(after)
                if not batch and not await self._goes_on():
                    lost_s = math.inf if self._owner == HANDED_OVER else lost_s + _WAIT_S
                    if self._state.status == "running" and self._owner and lost_s <= _LOST_S:
                        continue  # A store that was restarted knows an owner again after its next heartbeat.
                    if (taken := await self._taken_over()) is WAITING:
                        continue
                    if taken is not None:
                        async with aclosing(taken.batches(after)) as batches:
                            async for batch in batches:
                                yield batch
                        return
                    batch = await self._last_words(after)
                    if not batch:
                        return
            except RunUnreadableError as error:
                self._note(error)
                yield self._cut_off(after)
                return
            except RunStoreError:
                silent_s += _WAIT_S
                if silent_s > _TIMEOUT_S:
                    return
                await asyncio.sleep(_WAIT_S)
                continue
            silent_s = 0.0
            if batch:
                after, lost_s = batch[-1].seq, 0.0
                yield batch
                if batch[-1].type in TERMINAL_TYPES:
                    return

    async def frames(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """See ``RunHandle.frames``."""
        async with aclosing(self.batches(after)) as batches:
            async for batch in batches:
                yield b"".join(map(encode_event, batch))

    async def cancel(self) -> None:
        """See ``RunHandle.cancel``."""
        await self._end("cancel")

    async def forget(self) -> None:
        """Have the run end, and its owner store nothing of it any more. Raises as ``cancel`` does."""
        await self._end("forget")

    async def _end(self, command: Command) -> None:
        try:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._ask_to_end(command)
            except TimeoutError:
                if not await self._goes_on():  # Nobody drives it, and nobody is to begin.
                    await self._store.abandon(self.meta)
        except RunStoreError as error:
            raise _unreachable() from error

    async def _ask_to_end(self, command: Command) -> None:
        """Return once the run has ended. Where its owner is gone, it is taken over to be ended."""
        polls = 0
        while True:
            if await self._goes_on():
                if polls % _POLLS_PER_MESSAGE == 0:  # A message is lost where the owner's connection breaks.
                    await self._store.send_to_owner(self.meta, command)
                polls += 1
                await asyncio.sleep(_POLL_S)
            elif isinstance(taken := await self._taken_over(), RunHandle):
                return await taken.cancel()
            elif taken is None:
                return None
            else:
                await asyncio.sleep(_WAIT_S)

    async def run(self) -> Run:
        """See ``RunHandle.run``. Raises ``RunUnreadableError`` where what is stored of it can't be read."""
        try:
            if (record := await self._store.record(self.meta.id)) is not None:
                return self._parsed(record)
            events = await self._read(-1, 0)
            if not (await (self._still_goes_on() if _is_whole(events) else self._goes_on())):
                # It may have ended since: the record comes with the state that says so.
                if (record := await self._store.record(self.meta.id)) is not None:
                    return self._parsed(record)
                if self._state.status != "running" and not _is_whole(events):
                    raise RunUnreadableError(self.meta.id, "its record and the end of its log are gone")
                if not await self._may_be_taken_over():
                    events += await self._last_words(events[-1].seq if events else -1)
        except RunStoreError as error:
            raise _unreachable() from error
        fold = RunFold(created=self.meta.created)
        for event in events if events and events[0].seq == 0 else [self._first(), *events]:
            fold.add(event)
        return fold.so_far()

    def _parsed(self, record: bytes) -> Run:
        try:
            run = Run.model_validate_json(record)
        except ValidationError as error:
            raise RunUnreadableError(self.meta.id, "its record is damaged, or of another release") from error
        if run.id != self.meta.id:
            raise RunUnreadableError(self.meta.id, "its record is another run's")
        return run

    async def _next(self, after: int) -> list[KnownEvent]:
        if self._state.status != "running":
            return await self._read(after, 0)
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._message_due_s:
            self._message_due_s = now_s + _WAIT_S
            # Another server may have taken the run over since.
            with suppress(RunStoreError):
                self._state = await self._store.state(self.meta.id) or self._state
            # A full store takes no messages. The owner may end the run then, but what there is can be read.
            with suppress(RunStoreError):
                await self._store.send_to_owner(self.meta, "read")
        return await self._read(after, _WAIT_S)

    async def _read(self, after: int, wait_s: float) -> list[KnownEvent]:
        logged = await self._store.read(self.meta.id, after, wait_s)
        if [one.seq for one in logged] != list(range(after + 1, after + 1 + len(logged))):
            raise RunUnreadableError(self.meta.id, "events are missing in its log")
        return [self._event(one) for one in logged]

    async def _goes_on(self) -> bool:
        if self._state.status != "running":
            return False
        state = await self._store.state(self.meta.id)
        if state is None:
            return False
        self._state = state
        self._owner = self._owner and state.meta.replica  # Once abandoned, a run has no owner again.
        return state.status == "running" and await self._store.is_alive(self._owner)

    async def _still_goes_on(self) -> bool:
        """Wait a moment for the record of a run whose log is whole; return whether the run still goes on then."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + _RECORD_WITHIN_S
        while goes_on := await self._goes_on():
            if loop.time() >= due_s:
                break
            await asyncio.sleep(_POLL_S)
        return goes_on

    async def _may_be_taken_over(self) -> bool:
        is_open = self._state.status == "running" and bool(self._owner) and self._take_over is not None
        return is_open and await self._store.plan(self.meta.id) is not None

    async def _taken_over(self) -> RunHandle | Waiting | None:
        """Have the run go on here, or tell whether it may go on elsewhere. Call it only once its owner is gone."""
        if self._take_over is None or self._state.status != "running" or not self._owner:
            return None
        return await self._take_over(self.meta)

    async def _last_words(self, after: int) -> list[KnownEvent]:
        """Return the end of the log of a run that does not go on: late events, then the failure of a gone owner."""
        events = await self._read(after, 0)
        if _is_whole(events):
            return events
        if self._state.status != "running":
            if not events and _is_whole(await self._read(-1, 0)):
                return []  # The reader is past the end already.
            self._note(RunUnreadableError(self.meta.id, "the end of its log is gone"))
            return [*events, *self._cut_off(events[-1].seq if events else after)]
        if after < 0 and not events:
            events.append(self._first())
        last = events[-1].seq if events else after
        return [*events, self._failed(last, "run_lost", run_failure("run_lost").message)]

    def _cut_off(self, after: int) -> list[KnownEvent]:
        """Return the end of a stream, after the event ``after``, whose rest can't be read."""
        begun: list[KnownEvent] = [self._first()] if after < 0 else []
        return [*begun, self._failed(max(after, 0), "run_unreadable", run_failure("run_unreadable").message)]

    def _failed(self, after: int, code: str, message: str) -> RunFailed:
        error = WireError(code=code, message=message)
        return RunFailed(seq=after + 1, run_id=self.meta.id, turn=0, t_ms=0.0, error=error, usage=Usage())

    def _first(self) -> RunStarted:
        meta = self.meta
        stamp: dict[str, Any] = {"seq": 0, "run_id": meta.id, "turn": 0, "t_ms": 0.0}
        return RunStarted(**stamp, model=meta.model, question=meta.question, created=meta.created)

    def _event(self, logged: LoggedEvent) -> KnownEvent:
        try:
            event = parse_event(logged.data)
        except ValidationError as error:
            raise RunUnreadableError(self.meta.id, "its log is damaged, or of another release") from error
        if (event.seq, event.run_id) != (logged.seq, self.meta.id):
            raise RunUnreadableError(self.meta.id, "its log is another run's")
        # Of a type that this release does not know, an event is passed on as it is.
        return cast(KnownEvent, event)


def _is_whole(events: list[KnownEvent]) -> bool:
    """Tell whether a log ends as it should."""
    return bool(events) and events[-1].type in TERMINAL_TYPES


def _unreachable() -> RunsUnreachableError:
    return RunsUnreachableError("The run can't be reached just now; try again.")
