"""Readiness: what runs need, watched in the background, so that probes and admission are answered from memory.

The engine is asked every few seconds, the run store tells by its heartbeats, providers by the searches that they are
sent anyway. Each change is one line in the log.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Any, Final, Self

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


class EngineWatch:
    """A watch of one engine. Use it as a context manager: the engine is asked again and again until it is left."""

    def __init__(self, engine: ServedEngine, part: Part, on_look: Callable[[bool], None]) -> None:
        """``on_look`` is told each time whether the engine is well."""
        self.engine, self.part, self._on_look = engine, part, on_look
        self._asked, self._doubted = asyncio.Event(), asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watching = asyncio.create_task(self._watch(), name="engine-watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    async def first_answer(self) -> None:
        """Return once the engine has been asked for the first time."""
        await self._asked.wait()

    @property
    def reason(self) -> str:
        """Word for the reason why it is not well; empty while it is."""
        return self.part.reason if self._asked.is_set() else "starting"

    @property
    def takes_runs(self) -> bool:
        """False while the engine is known to be in a state that no run would survive."""
        return self.part.ok or self.part.reason in SURVIVABLE_REASONS

    @property
    def retry_after_s(self) -> float:
        """Seconds after which to ask again while it takes no runs: the longer, the longer it has been so."""
        shortest_s, longest_s = _RETRY_S
        return min(longest_s, max(shortest_s, self.part.down_s / 4))

    def doubt(self) -> None:
        """Have the engine asked at once: a run has just found it gone."""
        self._doubted.set()

    async def _watch(self) -> None:
        while True:
            self._doubted.clear()
            health = await self._ask()
            self.part.note(ok=health.ok, reason=health.reason, detail=health.detail)
            self._on_look(health.ok)
            self._asked.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(ASK_EVERY_S if health.ok else ASK_UNWELL_EVERY_S):
                    await self._doubted.wait()
            if self._doubted.is_set():
                await asyncio.sleep(_SHORTEST_PAUSE_S)  # Many runs may find it gone at once, again and again.

    async def _ask(self) -> EngineHealth:
        try:
            async with asyncio.timeout(_ANSWER_S):
                return await self.engine.health()
        except TimeoutError:
            return EngineHealth(ok=False, reason="stalled", detail=f"it says nothing of its health in {_ANSWER_S:g} s")
        except Exception as error:  # noqa: BLE001 (the watch must outlive a bug of one engine)
            return EngineHealth(ok=False, reason="unhealthy", detail=f"its health can't be asked: {error!r}")


class Readiness:
    """The state of one gateway's parts. Use it as a context manager: it watches the engines until it is left."""

    def __init__(self, engines: Mapping[str, ServedEngine], metrics: Metrics) -> None:
        """``engines`` are those of all models by name, the default's first."""
        self._metrics = metrics
        self.engines = {name: self._watch_of(name, engine, len(engines)) for name, engine in engines.items()}
        """The watch of each model's engine."""
        self.store = Part("run store", lambda ok, _: metrics.run_store_up.set(ok))
        self.is_stopping = False
        """True from the signal that ends the process on."""
        self.is_closed = False
        """True once no run begins any more, because the process ends."""
        self._watching = AsyncExitStack()

    async def __aenter__(self) -> Self:
        watches = [await self._watching.enter_async_context(watch) for watch in self.engines.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_ANSWER_S):
                await asyncio.gather(*(watch.first_answer() for watch in watches))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watching.aclose()

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether a load balancer should send runs here, and what to tell it; words alone, no addresses.

        One engine that is well is enough: sent elsewhere, runs of the other models would meet the same engines. A run
        store that is down costs no answer, and a run goes on without passages: both are told, and no more.
        """
        default = next(iter(self.engines.values()))
        is_any_well = any(not watch.reason for watch in self.engines.values())
        reason = "stopping" if self.is_stopping else "" if is_any_well else default.reason
        told: dict[str, Any] = {"status": "not_ready", "reason": reason} if reason else {"status": "ready"}
        told |= {
            "engine": default.part.word,
            "retriever": self._metrics.search.providers.word,
            "store": self.store.word,
            **_replicas(default),
        }
        if len(self.engines) > 1:
            told["models"] = {
                name: {"engine": watch.part.word, **_replicas(watch)} for name, watch in self.engines.items()
            }
        return not reason, told

    def _watch_of(self, model: str, engine: ServedEngine, num_engines: int) -> EngineWatch:
        def changed(ok: bool, reason: str) -> None:
            if not ok:
                self._metrics.engine_failures.labels(model, reason).inc()

        part = Part("engine" if num_engines == 1 else f"engine of {model}", changed)
        return EngineWatch(engine, part, self._metrics.engine_up.labels(model).set)


def _replicas(watch: EngineWatch) -> dict[str, str]:
    if not isinstance(watch.engine, Replicated):
        return {}
    views = watch.engine.replicas
    return {"replicas": f"{sum(view.healthy for view in views)} of {len(views)} ready"}


def opening_report() -> dict[str, str]:
    """Return what a load balancer is told before anything is open."""
    return {"status": "not_ready", "reason": "starting"}
