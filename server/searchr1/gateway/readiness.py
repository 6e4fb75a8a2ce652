"""Readiness: what runs need, watched in the background, so that probes and admission are answered from memory.

The engine is asked every few seconds, the run store tells by its heartbeats, providers by the searches that they are
sent anyway. Each change is one line in the log.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from searchr1.engines.base import SURVIVABLE_REASONS, EngineHealth, Replicated, ServedEngine
from searchr1.gateway.metrics import Metrics

logger = logging.getLogger(__name__)

ASK_EVERY_S: Final = 2.0
ASK_UNWELL_EVERY_S: Final = 0.5
"""Seconds between two questions while the engine is not well: it should not stay shut out for long once it is back."""
_FIRST_ANSWER_S: Final = 1.0
"""Longest time that a start waits for the engine's first word."""
_ANSWER_S: Final = 10.0
"""Longest time for an engine to tell its health, whatever it promises."""
_SHORTEST_PAUSE_S: Final = 0.1
_RETRY_S: Final = (2.0, 30.0)


class Part:
    """One thing that runs need, as it was last seen."""

    def __init__(self, name: str, on_change: Callable[[bool, str], None] | None = None) -> None:
        """``on_change`` is told of each change: whether the part is well now, and if not, the reason."""
        self.name = name
        self.ok = True
        self.reason = ""
        """Word for a reason that may be shown to anyone; empty for a part that is well."""
        self._since = time.monotonic()
        self._on_change = on_change or (lambda _ok, _reason: None)

    @property
    def word(self) -> str:
        """``ok``, or the reason why it is not."""
        return self.reason or "ok"

    @property
    def down_s(self) -> float:
        """Seconds for which it has not been well."""
        return 0.0 if self.ok else time.monotonic() - self._since

    def note(self, *, ok: bool, reason: str = "", detail: str = "") -> None:
        """Take what was seen; log it if it is a change. ``detail`` is for the log alone."""
        reason = "" if ok else reason or "unhealthy"
        if reason == self.reason:
            return
        words = reason.replace("_", " ")
        if ok:
            logger.info("%s is back after %.0f s", self.name, self.down_s)
        elif detail:
            logger.warning("%s %s: %s", self.name, words, detail)
        else:
            logger.warning("%s %s", self.name, words)
        if ok != self.ok:
            self._since = time.monotonic()
        self.ok, self.reason = ok, reason
        self._on_change(ok, reason)


class Readiness:
    """The state of one gateway's parts. Use it as a context manager: it watches the engine until it is left."""

    def __init__(self, engine: ServedEngine, metrics: Metrics) -> None:
        self._engine, self._metrics = engine, metrics
        self.engine = Part("engine", self._engine_changed)
        self.store = Part("run store", lambda ok, _: metrics.run_store_up.set(ok))
        self.is_stopping = False
        """True from the signal that ends the process on."""
        self._asked, self._doubted = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch_engine(), name="engine-watch")
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWER_S):
                await self._asked.wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    @property
    def takes_runs(self) -> bool:
        """False while the engine is known to be in a state that no run would survive."""
        return self.engine.ok or self.engine.reason in SURVIVABLE_REASONS

    @property
    def retry_after_s(self) -> float:
        """Seconds after which to ask again while it takes no runs: the longer, the longer it has been so."""
        shortest_s, longest_s = _RETRY_S
        return min(longest_s, max(shortest_s, self.engine.down_s / 4))

    def doubt_engine(self) -> None:
        """Have the engine asked at once: a run has just found it gone."""
        self._doubted.set()

    def report(self) -> tuple[bool, dict[str, str]]:
        """Return whether a load balancer should send runs here, and what to tell it; words alone, no addresses.

        A run store that is down costs no answer, and a run goes on without passages: both are told, and no more.
        """
        reason = "stopping" if self.is_stopping else self.engine.reason if self._asked.is_set() else "starting"
        told = {"status": "not_ready", "reason": reason} if reason else {"status": "ready"}
        told |= {"engine": self.engine.word, "retriever": self._metrics.search.providers.word, "store": self.store.word}
        if isinstance(self._engine, Replicated):
            views = self._engine.replicas
            told["replicas"] = f"{sum(view.healthy for view in views)} of {len(views)} ready"
        return not reason, told

    async def _watch_engine(self) -> None:
        while True:
            self._doubted.clear()
            health = await self._ask_engine()
            self.engine.note(ok=health.ok, reason=health.reason, detail=health.detail)
            self._metrics.engine_up.set(health.ok)
            self._asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_EVERY_S if health.ok else ASK_UNWELL_EVERY_S):
                    await self._doubted.wait()
            if self._doubted.is_set():
                await asyncio.sleep(_SHORTEST_PAUSE_S)  # Many runs may find it gone at once, again and again.

    async def _ask_engine(self) -> EngineHealth:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self._engine.health()
        except TimeoutError:
            return EngineHealth(ok=False, reason="stalled", detail=f"it says nothing of its health in {_ANSWER_S:g} s")
        except Exception as error:  # noqa: BLE001 (the watch must outlive a bug of one engine)
            return EngineHealth(ok=False, reason="unhealthy", detail=f"its health can't be asked: {error!r}")

    def _engine_changed(self, ok: bool, reason: str) -> None:
        if not ok:
            self._metrics.engine_failures.labels(reason).inc()


def opening_report() -> dict[str, str]:
    """Return what a load balancer is told before anything is open."""
    return {"status": "not_ready", "reason": "starting"}
