"""The mirror of a run in the store: its events as they come, then its record, or its way to another replica.

The store may fail: the run goes on, and what the store missed is written when it answers again.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from searchr1.gateway.runs.hand_over import HandOver
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import (
    RunForgottenError,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    RunTakenError,
)
from searchr1.gateway.runs.store.codec import MAX_RECORD_BYTES
from searchr1_client.events import Run

logger = logging.getLogger(__name__)

FLUSH_S: Final = 0.25
"""Seconds between two writes of events to the store; readers on other replicas are behind by as much."""
_OWN_FLUSH_S: Final = 30.0
"""The same for a store of this process alone, where nobody reads a run that goes on: it is to know that it does."""
RETRY_S: Final = 0.5
LAST_FLUSHES: Final = 10
"""Tries to store a run that has ended."""


class Mirror:
    """The writer of runs to the store.

    Args:
        store: where they go.
        hand_over: passes on runs that leave this replica.
        on_worked, on_failed: are told of each write.
        abandon: takes runs that could not be stored.
    """

    def __init__(
        self,
        store: RunStore,
        hand_over: HandOver,
        *,
        on_worked: Callable[[], None],
        on_failed: Callable[[RunStoreError], None],
        abandon: Callable[[RunMeta], None],
    ) -> None:
        self._store, self._hand_over = store, hand_over
        self._flush_s = FLUSH_S if store.is_shared else _OWN_FLUSH_S
        self._on_worked, self._on_failed, self._abandon = on_worked, on_failed, abandon

    async def keep(self, live: LiveRun) -> None:
        """Write a run's events to the store as they come, then its record."""
        try:
            if live.kept and not await self._has_stored(live) and live.kept:
                if live.is_leaving:
                    logger.warning("run %s was not handed over: the store did not answer", live.meta.id)
                    live.lose()
                    return
                logger.warning("run %s was not stored: the store did not take it", live.meta.id)
                self._abandon(live.meta)
        except RunTakenError:
            logger.warning("run %s goes on on another server, which took this one for gone", live.meta.id)
            live.lose()
        except Exception:  # Otherwise readers elsewhere would wait for it as long as this server lives.
            logger.exception("storing run %s met an error of the server's own", live.meta.id)
            self._abandon(live.meta)
        finally:
            live.wait_no_longer()
        await live.driven.wait()
        if live.is_leaving and not live.is_lost:  # It was forgotten, and its readers still wait for its end.
            live.stop_here()

    async def _has_stored(self, live: LiveRun) -> bool:
        created, tries_left = live.was_taken_over, LAST_FLUSHES
        while live.kept and tries_left:
            try:
                if not created:  # At once: whoever is given the id may ask another replica for it.
                    with live.storing():
                        await self._store.create(live.meta, live.plan)
                    created = True
                await live.news(self._flush_s)
                await self._append(live)
                if live.ended and not live.unstored() and await self._has_come_to_rest(live):
                    self._on_worked()
                    return True
            except RunTakenError:
                raise
            except RunStoreError as error:
                live.wait_no_longer()
                if isinstance(error, RunForgottenError):
                    created = False
                    live.mark_unstored()
                self._on_failed(error)
                tries_left -= live.ended
                await asyncio.sleep(RETRY_S)
        return False

    async def _append(self, live: LiveRun) -> None:
        """Store a run's new events, and the inputs that led to them."""
        events, inputs = live.next_batch()
        if not events:
            return
        with live.storing():
            await self._store.append(live.meta, events, b"\n".join(inputs))
        live.mark_stored(events, inputs)

    async def _has_come_to_rest(self, live: LiveRun) -> bool:
        """Store a run's record, or pass it on; False where it is to end here after all, and has more to store."""
        if live.is_leaving:
            if live.may_be_passed_on and await self._hand_over.passed_on(live.meta):
                live.lose()
                return True
            live.stop_here()
            return False
        record = live.record()
        await self._store.finish(RunState(live.meta, record.status, record.answer), _json(record))
        return True


def _json(run: Run) -> bytes:
    """Return a run's record; without its trajectory where no reader would take it, so large is it."""
    record = run.model_dump_json().encode()
    if len(record) <= MAX_RECORD_BYTES:
        return record
    logger.warning("run %s was stored without its trajectory: it takes %d bytes", run.id, len(record))
    return run.model_copy(update={"trajectory": None}).model_dump_json().encode()
