"""The hand-over: a gateway that stops in good order passes its stored runs on to others, which go on with them at once.

A run is passed on only where another gateway serves its model and is not stopping itself. It then belongs to nobody
until that one takes it. If nobody does, because all stop together, this gateway takes it back and ends it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import HANDED_OVER, RunMeta, RunStore, RunStoreError

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 1.0
"""Seconds that the store has to name other gateways; one that is silent for longer takes no run either."""
_TAKEN_WITHIN_S: Final = 2.0
_POLL_S: Final = 0.1


class HandOver:
    """The hand-over of one gateway's runs.

    Args:
        store: the gateway's.
        replica: its id.
        on_failure: is told of each failure of the store.
    """

    def __init__(self, store: RunStore, replica: str, *, on_failure: Callable[[RunStoreError], None]) -> None:
        self._store, self._replica, self._on_failure = store, replica, on_failure

    async def begin(self, runs: Sequence[LiveRun]) -> int:
        """Have those of ``runs`` leave that another gateway would take; return their number.

        On return none of them is driven here any more, unless its engine is slow to let go. Their mirrors pass them on.
        """
        models = sorted({live.meta.model for live in runs})
        takers = dict(zip(models, await asyncio.gather(*map(self._takers_in_time, models)), strict=True))
        leaving = [live for live in runs if takers[live.meta.model] and live.leave()]
        if leaving:
            driven = [asyncio.ensure_future(live.driven.wait()) for live in leaving]
            await asyncio.wait(driven, timeout=_ANSWER_S)
            logger.info("runs that are handed over to other servers: %d", len(leaving))
        return len(leaving)

    async def passed_on(self, meta: RunMeta) -> bool:
        """Pass on a run that is stored and not driven any more; False where it is this gateway's still, or again.

        Raises:
            RunStoreError: the store does not answer; the call can be repeated.
        """
        if not await self._store.hand_over(meta):
            state = await self._store.state(meta.id)
            return state is not None and state.meta.replica != self._replica
        left = replace(meta, replica=HANDED_OVER)
        if takers := await self._takers(meta.model):
            await self._store.send_to_owner(replace(meta, replica=random.choice(takers)), "take")
        with suppress(TimeoutError):
            async with asyncio.timeout(_TAKEN_WITHIN_S):
                while not await self._is_taken(left):  # noqa: ASYNC110 (another process's work)
                    await asyncio.sleep(_POLL_S)
                return True
        if await self._takers(meta.model):
            return True  # They have no room just now, and look again every few seconds.
        return await self._store.take(left, self._replica) is None

    async def _is_taken(self, left: RunMeta) -> bool:
        state = await self._store.state(left.id)
        return state is None or state.meta.replica != left.replica

    async def _takers(self, model: str) -> list[str]:
        return [one for one in await self._store.takers(model) if one != self._replica]

    async def _takers_in_time(self, model: str) -> list[str]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._takers(model)
        except TimeoutError as error:
            self._on_failure(_silent(error))
        except RunStoreError as error:
            self._on_failure(error)
        return []


def _silent(cause: TimeoutError) -> RunStoreError:
    error = RunStoreError("the run store does not answer in time")
    error.__cause__ = cause
    return error
