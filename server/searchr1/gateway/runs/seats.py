"""Seats: asyncio around the pure scheduler, which says who of this process's runs may start and whose turn it is."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from searchr1.engines.base import Replicated, ServedEngine, TellsMetrics
from searchr1.engines.pool.load import load_of
from searchr1.errors import EngineError
from searchr1.gateway.runs.errors import NoSlotError, PromptTooLargeError, SeatExpiredError
from searchr1.gateway.runs.shared_capacity import BALANCE_S, SharedCapacity
from searchr1.identity import Caller
from searchr1.scheduling.decisions import Admit, Decision, Expire, Moved, Pause, Refuse, Resume
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.scheduler import Scheduler
from searchr1.scheduling.shares import Part
from searchr1.turns import Turns

logger = logging.getLogger(__name__)

TICK_S: Final = 0.5
_CAPACITY_EVERY_S: Final = 30.0
_RETRY_S: Final = 1.0
_BACK_WITHIN_S: Final = 10.0
_NOTHING_YET: Final = Part(0, 1 << 62)
"""Of a replica that others may use, until it is known what they leave: nothing starts, and what runs goes on."""


class Seats:
    """The seats of one process. Use it as a context manager: its clock runs meanwhile.

    Args:
        engine: the engine that the runs use; a pool of replicas is told where to put each.
        options: see ``SchedulingOptions``.
        weights: the shares of tenants, by name; 1 for those that it lacks.
        shared: balances capacities with other processes, if any use them; it is closed with this.
        engine_name: name of an engine that is no pool, by which those others know it.
    """

    def __init__(
        self,
        engine: ServedEngine,
        options: SchedulingOptions,
        *,
        weights: Mapping[str, float] | None = None,
        shared: SharedCapacity | None = None,
        engine_name: str = "engine",
    ) -> None:
        self._engine, self._options, self._weights = engine, options, weights or {}
        self._pool = engine if isinstance(engine, Replicated) else None
        self._shared, self._engine_name = shared, engine_name
        self._parts: dict[str, Part] = {}
        self._is_new = asyncio.Event()
        """Set for a replica of which no part is known yet."""
        self._scheduler = Scheduler(options)
        self._seats: dict[str, Seat] = {}
        self._numbers = itertools.count()
        self._replicas: dict[str, _Told] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.num_pauses = 0
        """Times that a run gave its room back."""
        if shared is not None and shared.shares_runs:
            self._scheduler.runs_limited(0, time.monotonic())
        self._look_at_replicas()

    async def __aenter__(self) -> "Seats":
        self._tasks = [
            asyncio.create_task(self._tick(), name="seats"),
            asyncio.create_task(self._watch_capacity(), name="engine-capacity"),
        ]
        if self._shared is not None:
            self._tasks.append(asyncio.create_task(self._keep_balance(self._shared), name="shared-capacity"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shared is not None:
            await self._shared.aclose()

    @property
    def num_running(self) -> int:
        """Number of runs that have started and not ended."""
        return self._scheduler.num_admitted

    @property
    def num_queued(self) -> int:
        """Number of runs that wait for their start."""
        return self._scheduler.num_queued

    @property
    def num_waiting(self) -> int:
        """Number of started runs that wait for room for their next turn."""
        return self._scheduler.num_waiting

    @property
    def share_tokens(self) -> int:
        """Tokens of the engine's KV caches that are for this process's runs; 0 where no capacity is known."""
        known = self._known_tokens()
        if self._shared is None:
            return sum(known.values())
        return sum(self._parts.get(name, _NOTHING_YET).meant for name in known)

    def has_room(self, caller: Caller) -> bool:
        """Return whether a run of ``caller`` would be taken now, if only into the queue."""
        return self._scheduler.would_take(_tenant_of(caller))

    def check_room(self, caller: Caller) -> None:
        """Refuse a run that would not be taken now, before anything is spent on it.

        Raises:
            NoSlotError: nothing is free, and the queue is full.
        """
        if (refusal := self._scheduler.refusal(_tenant_of(caller), time.monotonic())) is not None:
            raise _no_slot(refusal)

    @contextmanager
    def seat(
        self,
        caller: Caller,
        *,
        num_ids: int = 1,
        growth_tokens: int | None = None,
        session: str = "",
        deadline_s: float | None = None,
    ) -> Iterator["Seat"]:
        """Hold a seat, or a place in the queue for one, while the block runs.

        Args:
            caller: who asks: tenants get equal shares, and so do the keys of one tenant.
            num_ids: length of the prompt in tokens.
            growth_tokens: what it may grow by, where that is known; by default it is expected to grow as runs do.
            session: the name by which the engine knows the run.
            deadline_s: seconds for which the run waits for its start, at most.

        Raises:
            NoSlotError: nothing is free, and the queue is full.
        """
        name = str(next(self._numbers))
        now = time.monotonic()
        seat = Seat(self, name, session)
        tenant = _tenant_of(caller)
        self._seats[name] = seat
        decisions = self._scheduler.submit(
            name,
            tenant=tenant,
            key=caller.key_id,
            prompt_tokens=num_ids,
            growth_tokens=growth_tokens,
            now=now,
            deadline_at=None if deadline_s is None else now + deadline_s,
            tenant_weight=self._weights.get(caller.tenant, 1.0),
        )
        try:
            if any(isinstance(one, Refuse) and one.reason == "too_large" for one in decisions):
                raise self._too_large(num_ids)
            self.carry_out(decisions)
            yield seat
        finally:
            del self._seats[name]
            if self._scheduler.state(name) is not None:
                left = self._scheduler.ended(
                    name, time.monotonic(), footprint_tokens=seat.num_ids or None, was_whole=seat.was_whole
                )
                self.carry_out(left)

    def _too_large(self, num_ids: int) -> NoSlotError:
        """Return the refusal of a prompt that no healthy replica holds: final, or until a larger one is back."""
        down = [told.capacity_tokens for told in self._replicas.values() if not told.healthy]
        if any(tokens is None or tokens >= num_ids for tokens in down):
            return NoSlotError(_BACK_WITHIN_S)
        return PromptTooLargeError(num_ids, self._scheduler.largest_tokens)

    def wanted(self, seat: "Seat") -> None:
        """Ask for the next turn of a seat's run."""
        self.carry_out(self._scheduler.turn_wanted(seat.name, seat.num_ids, time.monotonic()))

    def ended(self, seat: "Seat") -> None:
        """Take the end of a turn."""
        self.carry_out(self._scheduler.turn_ended(seat.name, seat.num_ids, time.monotonic()))

    def lost(self, seat: "Seat") -> None:
        """Take a turn that broke off and wants to go on."""
        self._look_at_replicas()
        self.carry_out(self._scheduler.turn_lost(seat.name, seat.num_ids, time.monotonic()))

    def priority(self, seat: "Seat") -> int:
        """Return the engine's priority for the turn of a seat's run."""
        return self._scheduler.priority(seat.name)

    def carry_out(self, decisions: Sequence[Decision]) -> None:
        """Tell the runs what was decided. Raises ``NoSlotError`` where one was refused."""
        for decision in decisions:
            match decision:
                case Refuse():
                    raise _no_slot(decision)
                case Admit() | Resume():
                    if (seat := self._seats.get(decision.run)) is not None:
                        self._place(seat, decision.replica)
                        seat.grant()
                case Moved():
                    if (seat := self._seats.get(decision.run)) is not None:
                        seat.move(decision.place)
                case Expire():
                    if (seat := self._seats.get(decision.run)) is not None:
                        seat.expire()
                case Pause():
                    self.num_pauses += 1

    def _place(self, seat: "Seat", replica: str) -> None:
        if replica != seat.replica and self._pool is not None:
            self._pool.place(seat.session, replica)
        seat.replica = replica

    async def _tick(self) -> None:
        while True:
            try:
                self._look_at_replicas()
                self.carry_out(self._scheduler.tick(time.monotonic()))
            except Exception:  # Without its clock, nobody would leave the queue at a deadline any more.
                logger.exception("the clock of the seats met an error of the server's own")
            await asyncio.sleep(TICK_S)

    async def _watch_capacity(self) -> None:
        while True:
            has_told = await self._look_at_capacity()
            await asyncio.sleep(_CAPACITY_EVERY_S if has_told else _RETRY_S)

    def _look_at_replicas(self) -> None:
        if self._pool is None:
            if not self._replicas:
                self._change(self._engine_name, _Told(None, healthy=True))
            return
        views = {view.name: view for view in self._pool.replicas}
        for name in self._replicas.keys() - views.keys():
            self._change(name, replace(self._replicas[name], healthy=False))
            del self._replicas[name]
        for name, view in views.items():
            self._change(name, _Told(view.capacity_tokens, view.block_tokens, healthy=view.healthy))

    async def _look_at_capacity(self) -> bool:
        """Ask an engine that is no pool how much it holds, and return whether it answered.

        One that does not tell is bounded by the runs alone.
        """
        if self._pool is None and isinstance(self._engine, TellsMetrics):
            try:
                load = load_of(await self._engine.metrics_text())
            except EngineError:
                return False
            self._change(self._engine_name, _Told(load.capacity_tokens, load.block_tokens, healthy=True))
        return True

    def _change(self, name: str, told: "_Told") -> None:
        if self._replicas.get(name) == told:
            return
        self._replicas[name] = told
        self._tell(name)

    def _tell(self, name: str) -> None:
        """Tell the scheduler of a replica, and of the part of it that is for this process's runs."""
        told, part = self._replicas[name], None
        if self._shared is not None and told.capacity_tokens is not None:
            part = self._parts.get(name, _NOTHING_YET)
            if name not in self._parts:
                self._is_new.set()
        decisions = self._scheduler.replica_changed(
            name,
            told.capacity_tokens,
            block_tokens=told.block_tokens,
            healthy=told.healthy,
            now=time.monotonic(),
            part=part,
        )
        self.carry_out(decisions)

    def _known_tokens(self) -> dict[str, int]:
        """Return the capacity of each healthy replica that tells it."""
        return {
            name: told.capacity_tokens for name, told in self._replicas.items() if told.capacity_tokens and told.healthy
        }

    async def _keep_balance(self, shared: SharedCapacity) -> None:
        while True:
            try:
                await self._balance(shared)
            except Exception:  # Without it, what others leave would never be used, nor what they need be left.
                logger.exception("the balance of capacity met an error of the server's own")
            with suppress(TimeoutError):
                async with asyncio.timeout(BALANCE_S):
                    await self._is_new.wait()

    async def _balance(self, shared: SharedCapacity) -> None:
        self._is_new.clear()
        known = self._known_tokens()
        before, self._parts = self._parts, await shared.parts_of_replicas(known, self._scheduler.demand)
        for name in self._parts.keys() & self._replicas.keys():
            if before.get(name) != self._parts[name]:
                self._tell(name)
        if shared.shares_runs and (whole := self._options.max_runs) is not None:
            part = await shared.part_of_runs(whole, self._scheduler.demand)
            self.carry_out(self._scheduler.runs_limited(part.meant, time.monotonic()))


@dataclass(frozen=True, slots=True)
class _Told:
    """What the scheduler was told of a replica."""

    capacity_tokens: int | None
    block_tokens: int = 1
    healthy: bool = field(kw_only=True)


class Seat(Turns):
    """One run's seat, or its place in the queue until it has one."""

    def __init__(self, seats: Seats, name: str, session: str) -> None:
        self.name, self.session = name, session
        self.replica: str | None = None
        self.num_ids = 0
        """Tokens of the run, as far as they were told."""
        self.was_whole = False
        """True for a run that came to its own end: what it took says something of others."""
        self._seats = seats
        self._place: int | None = None
        self._is_granted = self._has_begun = self._is_expired = False
        self._change: asyncio.Future[None] | None = None
        """What ``places`` waits for; most runs start at once and never do."""

    async def places(self) -> AsyncGenerator[int, None]:
        """Yield the number of runs that are expected to start before this one, as it changes, until it may start.

        Raises:
            SeatExpiredError: its deadline passed before.
        """
        told = None
        while not self._is_granted:
            if self._is_expired:
                raise SeatExpiredError
            if self._place is not None and self._place != told:
                told = self._place
                yield told
                continue
            self._change = asyncio.get_running_loop().create_future()
            await self._change

    async def begin(self, num_ids: int) -> int:
        """See ``Turns``. Raises ``SeatExpiredError`` where the run's deadline passed before its start."""
        if self._has_begun:
            self.num_ids = num_ids
            self._seats.wanted(self)
        await self._until_granted()
        self._has_begun, self._is_granted = True, False
        return self._seats.priority(self)

    def end(self, num_ids: int) -> None:
        """See ``Turns``."""
        self.num_ids = num_ids
        self._seats.ended(self)

    async def lost(self, num_ids: int) -> None:
        """See ``Turns``."""
        self.num_ids = num_ids
        self._seats.lost(self)
        await self._until_granted()
        self._is_granted = False

    def grant(self) -> None:
        """Let the run have its turn."""
        self._is_granted = True
        self._has_changed()

    def move(self, place: int) -> None:
        """Tell the run its place in the queue."""
        self._place = place
        self._has_changed()

    def expire(self) -> None:
        """Tell the run that its time was up before it could start."""
        self._is_expired = True
        self._has_changed()

    def _has_changed(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def _until_granted(self) -> None:
        async for _ in self.places():
            pass


def _tenant_of(caller: Caller) -> str:
    return f"t:{caller.tenant}" if caller.tenant else f"k:{caller.key_id}"


def _no_slot(refusal: Refuse) -> NoSlotError:
    return NoSlotError(60.0 if refusal.retry_after_s is None else refusal.retry_after_s)
