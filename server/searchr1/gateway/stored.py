"""A run that is stored: one that has ended, or one that lives on another replica."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

from searchr1.gateway.errors import ApiError
from searchr1.gateway.runstore.base import LoggedEvent, RunMeta, RunState, RunStore, RunStoreError
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
"""For one read of the log."""
_PATIENCE_S = 10.0
"""How long a reader bears a store that does not answer, and a cancel waits for the owner."""


class StoredRun:
    """See ``RunHandle``."""

    def __init__(self, state: RunState, store: RunStore) -> None:
        self._state, self._store = state, store

    @property
    def meta(self) -> RunMeta:
        """See ``RunHandle.meta``."""
        return self._state.meta

    async def batches(self, after: int = -1) -> AsyncGenerator[list[KnownEvent], None]:
        """See ``RunHandle.batches``. The run of an owner that is gone ends as failed."""
        silent_s = 0.0
        while True:
            try:
                if self._state.status == "running":
                    await self._store.tell_owner(self.meta, "read")
                logged = await self._store.read(self.meta.id, after, _WAIT_S)
                lost = not logged and not await self._goes_on()
            except RunStoreError:
                silent_s += _WAIT_S
                if silent_s > _PATIENCE_S:
                    return
                await asyncio.sleep(_WAIT_S)
                continue
            silent_s = 0.0
            if lost:
                if last := await self._last_words(after):
                    yield last
                return
            if batch := [_event(one) for one in logged]:
                after = batch[-1].seq
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
        try:
            if not await self._goes_on():
                return
            await self._store.tell_owner(self.meta, "cancel")
            async with asyncio.timeout(_PATIENCE_S):
                while await self._goes_on():  # noqa: ASYNC110 (the store can't tell)
                    await asyncio.sleep(0.05)
        except RunStoreError as error:
            raise ApiError(503, "The run can't be reached just now; try again.", code="store_unavailable") from error
        except TimeoutError:
            pass  # It was asked, and the answer shows that it still runs.

    async def run(self) -> Run:
        """See ``RunHandle.run``."""
        try:
            if (record := await self._store.record(self.meta.id)) is not None:
                return Run.model_validate_json(record)
            events = [_event(one) for one in await self._store.read(self.meta.id, -1, 0)]
            if not await self._goes_on():
                events += await self._last_words(events[-1].seq if events else -1) or ()
        except RunStoreError as error:
            raise ApiError(503, "The run can't be reached just now; try again.", code="store_unavailable") from error
        fold = RunFold(created=self.meta.created)
        for event in events or [self._first()]:
            fold.add(event)
        return fold.so_far()

    async def _goes_on(self) -> bool:
        if self._state.status != "running":
            return False
        state = await self._store.state(self.meta.id)
        if state is None:
            return False
        self._state = state
        return state.status == "running" and await self._store.lives(self.meta.replica)

    async def _last_words(self, after: int) -> list[KnownEvent] | None:
        """What ends the log of a run that does not go on: events that came just now, or that its owner is gone."""
        logged = await self._store.read(self.meta.id, after, 0)
        if logged:
            return [_event(one) for one in logged]
        if self._state.status != "running":
            return None  # The reader has had everything.
        error = WireError(code="run_lost", message="The server that ran this stopped before the run ended.")
        return [RunFailed(seq=after + 1, run_id=self.meta.id, turn=0, t_ms=0.0, error=error, usage=Usage())]

    def _first(self) -> RunStarted:
        return RunStarted(
            seq=0, run_id=self.meta.id, turn=0, t_ms=0.0, model=self.meta.model, question=self.meta.question
        )


def _event(logged: LoggedEvent) -> KnownEvent:
    # Replicas of one gateway share one version, or a newer one reads an older one's events.
    return cast(KnownEvent, parse_event(logged.data))
