"""One replica of a pool: the client of its server, whether it takes sessions, and how much room it has."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from searchr1.breaker import Breaker
from searchr1.engines.base import SURVIVABLE_REASONS, EngineHealth, ReplicaState, ReplicaView
from searchr1.engines.pool.load import Load, load_of
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.errors import EngineError

logger = logging.getLogger(__name__)

_FAILURES: Final = 5
"""Completions in a row that a server may fail before it is left alone for a moment, whatever it says of its health."""
_RESET_S: Final = 2.0


class Replica:
    """A replica; its ``name`` is its address, without credentials."""

    def __init__(self, client: VllmHttpEngine) -> None:
        self.client = client
        self.name = client.base_url
        self.breaker = Breaker(
            failures=_FAILURES, reset_s=_RESET_S, unauthorized_reset_s=_RESET_S, on_change=lambda _: self._note()
        )
        self.num_in_flight = 0
        self.num_placed = 0
        """Sessions that were ever placed here."""
        self.load = Load()
        self.seen = asyncio.Event()
        """Set once it has been looked at."""
        self.doubted = asyncio.Event()
        """Set to have it looked at soon: a completion has just failed there."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._pending_tokens = 0
        """Longest that completions may become which were sent since the load was read."""
        self._health = EngineHealth(ok=False, reason="starting")
        self._is_draining = self._is_loading = self._is_gone = False
        self._told: ReplicaState = "unwell"

    @property
    def state(self) -> ReplicaState:
        """What it is now."""
        if self._is_gone:
            return "gone"
        if self._is_draining or self._is_loading:
            return "draining"
        return "ready" if self.takes_sessions else "unwell"

    @property
    def takes_sessions(self) -> bool:
        """Whether a completion may be sent to it, the first one after a rest included."""
        return self.is_in_service and self.breaker.open_for_s() == 0

    @property
    def is_in_service(self) -> bool:
        """Whether it says that it is well enough for some runs, and nobody takes it out."""
        return self.serves and not (self._is_draining or self._is_loading or self._is_gone)

    @property
    def is_draining(self) -> bool:
        """Whether its owner has taken it out, for good or until it is taken in again."""
        return self._is_draining

    @property
    def is_loading(self) -> bool:
        """Whether it takes no sessions until it has other weights."""
        return self._is_loading

    @property
    def serves(self) -> bool:
        """Whether it says that it is well enough for some runs."""
        return self._health.ok or self._health.reason in SURVIVABLE_REASONS

    @property
    def view(self) -> ReplicaView:
        """The replica as others see it."""
        load = self.load
        return ReplicaView(
            self.name,
            self.state,
            load.capacity_tokens,
            load.used_tokens,
            self.num_in_flight,
            load.num_waiting,
            load.block_tokens,
            self.breaker.state,
        )

    @property
    def health(self) -> EngineHealth:
        """What was last seen of its health."""
        return self._health

    @property
    def room_tokens(self) -> int | None:
        """KV tokens that are free, those taken off that completions sent since may need; None where it is unknown."""
        load = self.load
        if load.capacity_tokens is None or load.used_tokens is None:
            return None
        return load.capacity_tokens - load.used_tokens - self._pending_tokens

    @contextmanager
    def in_flight(self, num_tokens: int) -> Iterator[None]:
        """Count a completion that may become ``num_tokens`` long, while the block runs."""
        self._pending_tokens += num_tokens
        self.num_in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self.num_in_flight -= 1
            if not self.num_in_flight:
                self._idle.set()

    async def idle_within(self, seconds: float) -> bool:
        """Return whether no completion is open on it by then, as soon as that is known."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        return self._idle.is_set()

    async def look(self) -> bool:
        """Ask the server how it is and how much room it has; return whether it serves. Never raises."""
        self._health = await self.client.health()
        self._note()  # A breaker's rest may also be over.
        if serves := self.serves:
            try:
                self.load = load_of(await self.client.metrics_text())
            except EngineError:
                # Its capacity is what it was: nobody may count on more because it did not tell.
                self.load = Load(self.load.capacity_tokens, block_tokens=self.load.block_tokens)
            self._pending_tokens = 0
        self.seen.set()
        return serves

    def drain(self) -> None:
        """Take no more sessions."""
        self._is_draining = True
        self._note()

    def admit(self) -> None:
        """Take sessions again after a drain; not while its weights are being replaced."""
        self._is_draining = False
        self._note()

    def begin_loading(self) -> None:
        """Take no more sessions until its weights have been replaced."""
        self._is_loading = True
        self._note()

    def end_loading(self) -> None:
        """Take sessions again, unless it is drained."""
        self._is_loading = False
        self._note()

    async def remove(self) -> None:
        """Close the client; what runs on the server is aborted."""
        self._is_gone = True
        self._note()
        await self.client.aclose()

    def _note(self) -> None:
        """Write a line for a change of state."""
        state = self.state
        if state == self._told:
            return
        logger.log(
            logging.WARNING if state == "unwell" else logging.INFO,
            "replica %s: %s, was %s%s",
            self.name,
            state,
            self._told,
            f" ({self._why()})" if state == "unwell" else "",
        )
        self._told = state

    def _why(self) -> str:
        if self._health.ok:
            return f"{_FAILURES} completions in a row failed"
        return self._health.detail or self._health.reason
