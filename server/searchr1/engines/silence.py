"""A silent engine: it has work, and nothing comes.

A completion that waits in a busy engine's queue is silent too, so silence is measured over all completions of an
engine, and the engine's own counters are looked at before it is called stalled.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from searchr1.errors import EngineUnavailableError

logger = logging.getLogger(__name__)

_SUSPECT_SHARE: Final = 1 / 3
_TICKS: Final = 12
_LONGEST_TICK_S: Final = 5.0

Fail = Callable[[EngineUnavailableError], None]


class SilenceWatch:
    """Watches the open completions of one engine, in one task that lives only while there is something to watch.

    Args:
        silence_s: seconds without any output, and without another sign of life, after which the open completions fail.
            After a third of it the engine is ``suspect``.
        signs: returns what changes while the engine works, such as its counters; None where it tells nothing. It ends
            in a bounded time and raises nothing.
        recovered: returns whether a stalled engine works again; bounded and safe likewise.
    """

    def __init__(
        self,
        silence_s: float,
        *,
        signs: Callable[[], Awaitable[Hashable | None]],
        recovered: Callable[[], Awaitable[bool]],
    ) -> None:
        self.silence_s, self.suspect_s = silence_s, silence_s * _SUSPECT_SHARE
        self.stalled = False
        """It was silent for ``silence_s``: its completions have failed, and new ones should not be sent."""
        self.suspect = False
        """It has work and has been silent for long; what is open may still come."""
        self._signs, self._recovered = signs, recovered
        self._tick_s = min(silence_s / _TICKS, _LONGEST_TICK_S)
        self._open: dict[int, Fail] = {}
        self._moves = 0
        self._holds = 0
        self._stalled_at = 0.0
        self._task: asyncio.Task[None] | None = None

    def moved(self) -> None:
        """Note that something came from the engine. Called for every piece, so it only counts."""
        self._moves += 1

    @contextmanager
    def watching(self, fail: Fail) -> Iterator[None]:
        """Watch a completion while the block runs. ``fail`` must end it with the error that it is given."""
        self._open[id(fail)] = fail
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch(), name="engine-silence")
        try:
            yield
        finally:
            del self._open[id(fail)]

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Expect silence while the block runs: the engine has been told to stand still."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            self._moves += 1

    @property
    def held(self) -> bool:
        """Whether the engine has been told to stand still."""
        return self._holds > 0

    @property
    def stalled_s(self) -> float:
        """Seconds since the engine was called stalled; 0 where it is not."""
        return time.monotonic() - self._stalled_at if self.stalled else 0.0

    def reset(self) -> None:
        """Take the engine for another one, of which nothing bad is known."""
        self.stalled = self.suspect = False
        self._moves += 1

    async def aclose(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while self._open or self.stalled:
            if self.stalled:
                await self._until_recovered()
            else:
                await self._until_stalled()

    async def _until_stalled(self) -> None:
        """Return when the open completions have failed, or none is open any more."""
        moves, looks, since = self._moves, list[Hashable | None](), time.monotonic()
        while self._open:
            await asyncio.sleep(self._tick_s)
            silent_s = time.monotonic() - since
            if self._moves != moves or self._holds:
                moves, looks, since, self.suspect = self._moves, [], time.monotonic(), False
            elif silent_s >= self.suspect_s:
                # The first look only tells where the counters stand.
                looks = [*looks[-1:], await self._signs()]
                if len(looks) == 2 and looks[0] != looks[1] and None not in looks:
                    since, self.suspect = time.monotonic(), False
                elif self._moves == moves and not self._holds:
                    self.suspect = True
                    if len(looks) == 2 and silent_s >= self.silence_s:
                        self._fail_all(silent_s)
                        return
        self.suspect = False

    def _fail_all(self, silent_s: float) -> None:
        self.stalled, self._stalled_at = True, time.monotonic()
        text = f"the engine has sent nothing for {silent_s:.0f} s"
        logger.error("%s: its %d completions fail", text, len(self._open))
        for fail in list(self._open.values()):
            fail(EngineUnavailableError(text))

    async def _until_recovered(self) -> None:
        moves = self._moves
        while not await self._recovered():
            await asyncio.sleep(self._tick_s)
            if self._moves != moves:
                break
        if not self.stalled:  # It was replaced meanwhile.
            return
        self.stalled = self.suspect = False
        logger.warning("the engine answers again")
