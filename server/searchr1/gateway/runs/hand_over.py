"""The hand-over: a gateway that stops in good order passes its stored runs on to others, which go on with them at once.

A run is passed on only where another gateway serves its model alike and is not stopping itself. It then belongs to
nobody until that one takes it. If nobody does, because all stop together, this gateway takes it back and ends it.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final

from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import (
    HANDED_OVER,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    RunUnreadableError,
)
from searchr1.gateway.served_model import ServedModel

logger = logging.getLogger(__name__)

_ANSWER_S: Final = 1.0
"""Seconds that the store has to name other gateways; one that is silent for longer takes no run either."""
_TAKEN_WITHIN_S: Final = 2.0
_POLL_S: Final = 0.1
_PROBE: Final = "<|im_start|>user\nOù est 東京, 1,234 km?<|im_end|>\n<think> a  b </think>\n<search> x </search>"
"""Text that tokenizers cut differently."""
_TOGETHER_S: Final = 0.5
"""Within so many seconds gateways that stop together have all said so."""


class HandOver:
    """The hand-over of one gateway's runs.

    Args:
        store: the gateway's.
        replica: its id.
        sort_of: returns ``sort_of_runs`` of a model, by its name.
        on_failure: is told of each failure of the store.
    """

    def __init__(
        self,
        store: RunStore,
        replica: str,
        *,
        sort_of: Callable[[str], str],
        on_failure: Callable[[RunStoreError], None],
    ) -> None:
        self._store, self._replica, self._sort_of, self._on_failure = store, replica, sort_of, on_failure
        self._announcing: asyncio.Task[None] | None = None

    async def announce(self) -> None:
        """Tell others that this gateway stops, so that none passes its runs to it; wait for what they tell."""
        self._announcing = self._announcing or asyncio.create_task(self._announce())
        await asyncio.wait((self._announcing,))

    async def announced(self) -> None:
        """Wait for ``announce``, if it was called: gateways that stop together must not count on each other."""
        if self._announcing is not None:
            await asyncio.wait((self._announcing,), timeout=_ANSWER_S + _TOGETHER_S)

    async def _announce(self) -> None:
        try:
            await self._store.stop_taking(self._replica)
        except RunStoreError as error:
            self._on_failure(error)
        await asyncio.sleep(_TOGETHER_S)

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

    async def taken_back(self, meta: RunMeta) -> RunState | None:
        """Take back a run that was passed on, while it is nobody's; return it, whosever it is now.

        None where it is gone, or can't be read.

        Raises:
            RunStoreError: the store does not answer.
        """
        try:
            state = await self._store.state(meta.id)
        except RunUnreadableError:
            return None
        if state is None or state.meta.replica != HANDED_OVER:
            return state
        return replace(state, meta=await self._store.take(state.meta, self._replica) or state.meta)

    async def _is_taken(self, left: RunMeta) -> bool:
        state = await self._store.state(left.id)
        return state is None or state.meta.replica != left.replica

    async def _takers(self, model: str) -> list[str]:
        return [one for one in await self._store.takers(self._sort_of(model)) if one != self._replica]

    async def _takers_in_time(self, model: str) -> list[str]:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._takers(model)
        except TimeoutError as error:
            self._on_failure(_silent(error))
        except RunStoreError as error:
            self._on_failure(error)
        return []


def sort_of_runs(model: ServedModel) -> str:
    """Return what gateways that can go on with each other's runs of a model say alike: its name, format and ids."""
    ids = model.tokenizer.encode_prompt(_PROBE)
    print_of_ids = hashlib.sha256(repr(ids).encode()).hexdigest()[:12]
    return f"{model.name} {model.settings.profile} {print_of_ids}"


def _silent(cause: TimeoutError) -> RunStoreError:
    error = RunStoreError("the run store does not answer in time")
    error.__cause__ = cause
    return error
