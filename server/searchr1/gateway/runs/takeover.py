"""Takeovers: runs whose gateway is gone go on here, from the inputs that it stored.

Whoever notices first takes a run: a gateway of which somebody asks for it, or one that looks around every few seconds.
Of all that try, the store lets one win; the others wait for what that one writes.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from pydantic import ValidationError

from searchr1.driver import DriveStats
from searchr1.errors import ConfigurationError
from searchr1.gateway.access.admission import LEAST_S, Plan
from searchr1.gateway.access.stored_plan import (
    NewerPlanError,
    PlanUnreadableError,
    StoredPlan,
    decode_bounds,
    decode_plan,
)
from searchr1.gateway.runs.drive import RunDrive, seat_of, trace_of
from searchr1.gateway.runs.errors import NoSlotError
from searchr1.gateway.runs.journal import Journal, JournalError, NewerJournalError, read_inputs
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.replay import Past, replay
from searchr1.gateway.runs.store.base import (
    HANDED_OVER,
    History,
    Orphan,
    RunMeta,
    RunStore,
    RunStoreError,
    RunTooLargeError,
    RunUnreadableError,
)
from searchr1.gateway.served_model import ServedModel
from searchr1.gateway.services import Services
from searchr1.retrieval.frozen import FrozenRetriever
from searchr1.trace_context import TRACE_HEADERS, trace_headers
from searchr1_client.events import KnownEvent, parse_event

logger = logging.getLogger(__name__)

MAX_TAKEOVERS: Final = 3
"""A run that outlived so many gateways may be what ends them: the next one lets it fail."""
_LOOK_EVERY_S: Final = 2.0
_GONE_FOR_S: Final = 2.0
"""A store that was restarted knows a living gateway again after its next heartbeat."""
_MAX_PER_LOOK: Final = 20
_MAX_TOLD: Final = 100
_PATIENCE_S: Final = 30.0
"""Seconds after its deadline for which a run without an owner is still expected to be taken."""


class _NotHereError(Exception):
    """This gateway can't go on with the run, for now or at all; another one may."""


class Waiting(Enum):
    """A run that another gateway has taken or may yet take, or this one when it has room."""

    WAITING = "waiting"


WAITING: Final = Waiting.WAITING
Adopt = Callable[[LiveRun, Callable[[], None]], None]
"""Taker of a run to be driven here, and of what frees its seat."""


@dataclass(frozen=True, slots=True)
class _Restored:
    """A run brought to the point where its owner left it."""

    plan: Plan
    past: Past
    stats: DriveStats
    data: tuple[bytes, ...]
    """JSON of the past events."""
    inputs: tuple[bytes, ...]


class Takeovers:
    """The takeovers of one gateway.

    Args:
        services, store: the gateway's.
        replica: its id.
        live: returns its own run of an id.
        adopt: takes a run that was taken over.
        on_failure: is told of each failure of the store.
    """

    def __init__(
        self,
        services: Services,
        store: RunStore,
        replica: str,
        *,
        live: Callable[[str], LiveRun | None],
        adopt: Adopt,
        on_failure: Callable[[RunStoreError], None],
    ) -> None:
        self._services, self._store, self._replica = services, store, replica
        self._live, self._adopt, self._on_failure = live, adopt, on_failure
        self._lock = asyncio.Lock()
        self._taking: set[asyncio.Task[LiveRun | Waiting | None]] = set()
        self._unfinished: dict[str, RunMeta] = {}
        """Runs that are this gateway's in the store, and that nobody drives yet."""
        self._told: deque[str] = deque(maxlen=_MAX_TOLD)
        self._called = asyncio.Event()
        """Set where there is a reason to look at once."""
        self._gone_since: dict[str, float] = {}
        """By replica, of the event loop's clock."""

    async def take(self, meta: RunMeta) -> LiveRun | Waiting | None:
        """Take over a run whose owner is gone, and return it; None where nobody can.

        Raises:
            RunStoreError: the store does not answer.
            RunUnreadableError: what is stored of the run can't be read.
        """
        # Whoever asked may leave, and a run that is half taken over would be nobody's.
        taking = asyncio.create_task(self._take_alone(meta))
        self._taking.add(taking)
        taking.add_done_callback(self._taken)
        return await asyncio.shield(taking)

    async def own(self, run_id: str) -> LiveRun | None:
        """Return this gateway's run of that id, once what is being taken over is taken."""
        async with self._lock:
            return self._live(run_id)

    def is_unfinished(self, run_id: str) -> bool:
        """Return whether the store has the run as this gateway's while nobody drives it yet."""
        return run_id in self._unfinished

    async def settled(self) -> None:
        """Wait until nothing is being taken over."""
        await asyncio.gather(*self._taking, return_exceptions=True)

    def _taken(self, taking: "asyncio.Task[LiveRun | Waiting | None]") -> None:
        self._taking.discard(taking)
        if not taking.cancelled():
            taking.exception()  # Whoever asked may have left, and has been told otherwise.

    async def _take_alone(self, meta: RunMeta) -> LiveRun | Waiting | None:
        async with self._lock:
            if (live := self._live(meta.id)) is not None:
                return live
            meta = self._unfinished.get(meta.id, meta)
            data = await self._store.plan(meta.id)
            if data is None:
                return None
            try:
                return await self._take(meta, decode_plan(data), data)
            except (NoSlotError, _NotHereError, NewerPlanError, NewerJournalError) as error:
                self._tell_once(meta, error)
                return WAITING if _is_worth_waiting(data) else None
            except (PlanUnreadableError, JournalError, RunTooLargeError) as error:
                logger.warning("run %s can't be taken over: %s", meta.id, error)
                return None

    def _tell_once(self, meta: RunMeta, error: Exception) -> None:
        if meta.id not in self._told:
            self._told.append(meta.id)
            logger.info("run %s is not taken over here, for now: %s", meta.id, error)

    def look_now(self) -> None:
        """Look around at once: another gateway has handed over a run."""
        self._called.set()

    async def look_around(self) -> None:
        """Take over what gateways that are gone have left, for ever."""
        while True:
            # Jitter, so that not all gateways come at once.
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(0.5, 1.5) * _LOOK_EVERY_S):
                    await self._called.wait()
            self._called.clear()
            try:
                await self._look()
            except RunStoreError as error:
                self._on_failure(error)
            except Exception:  # Without it, nobody would look for what other gateways leave.
                logger.exception("the look around met an error of the server's own")

    async def _look(self) -> None:
        for meta in list(self._unfinished.values()):
            if await self.take(meta) is None:
                await self._store.abandon(meta)
                self._unfinished.pop(meta.id, None)
        orphans = await self._store.orphans(_MAX_PER_LOOK)
        now = asyncio.get_running_loop().time()
        self._gone_since = {one.replica: self._gone_since.get(one.replica, now) for one in orphans}
        ripe = [
            one for one in orphans if one.replica == HANDED_OVER or now - self._gone_since[one.replica] >= _GONE_FOR_S
        ]
        random.shuffle(ripe)
        for orphan in ripe[:_MAX_PER_LOOK]:
            if not await self._is_provided_for(orphan):
                await self._store.disown(orphan)

    async def _is_provided_for(self, orphan: Orphan) -> bool:
        """Take over a run if it is there to be taken; tell whether it may go on one day."""
        try:
            state = await self._store.state(orphan.run_id)
            if state is None or state.status != "running" or state.meta.replica != orphan.replica:
                return False
            if await self.take(state.meta) is not None:
                return True
            await self._store.abandon(state.meta)
            return False
        except RunUnreadableError:
            data = await self._store.plan(orphan.run_id)
            return data is not None and _is_worth_waiting(data)  # A newer gateway may read it.

    async def _take(self, meta: RunMeta, stored: StoredPlan, data: bytes) -> LiveRun | Waiting:
        readiness = self._services.readiness
        if (model := self._services.models.get(stored.model)) is None:
            raise _NotHereError(f"the server does not serve {stored.model!r}")
        if readiness.is_stopping or not readiness.engines[model.name].takes_runs:
            raise _NotHereError("the server takes no runs")
        if not model.seats.has_room(stored.caller):
            raise _NotHereError("the server is full")
        restored = await self._restored(meta, model, stored, await self._store.history(meta.id))
        # Of the run's own trace, and not of whoever asked for it here.
        TRACE_HEADERS.set(trace_headers({"traceparent": stored.traceparent}))
        with ExitStack() as stack:
            seat = stack.enter_context(seat_of(self._services, restored.plan))
            stack.enter_context(self._services.access.limits.taken_over(stored.caller))
            taken = await self._store.take(meta, self._replica)
            if taken is None:
                return WAITING
            # From here on nobody else writes, and what fails is begun again at the next look around.
            self._unfinished[meta.id] = taken
            history = await self._store.history(meta.id)
            if len(history.events) > len(restored.data):
                restored = await self._restored(meta, model, stored, history)
            journal = Journal(restored.stats, restored.inputs, restored.past.unwritten)
            trace = trace_of(self._services, restored.plan, restored.stats, run_id=meta.id, num_takeovers=taken.epoch)
            drive = RunDrive(
                self._services,
                restored.plan,
                seat,
                run_id=meta.id,
                created=meta.created,
                asked=meta.question,
                stats=restored.stats,
                journal=journal,
                trace=trace,
                past=restored.past,
                elapsed_s=time.time() - stored.started_at,
                failure="takeovers_exhausted" if taken.epoch > MAX_TAKEOVERS else None,
            )
            past = list(zip(restored.past.events, restored.data, strict=True))
            live = LiveRun(taken, drive, leave_s=stored.grace_s, journal=journal, plan=data, past=past, is_shared=True)
            live.kept = live.was_taken_over = True
            self._adopt(live, stack.pop_all().close)
            del self._unfinished[meta.id]
        live.await_reader()
        self._services.metrics.runs_taken_over.inc()
        logger.info("run %s was taken over from %s, after %d events", meta.id, meta.replica, len(past))
        return live

    async def _restored(self, meta: RunMeta, model: ServedModel, stored: StoredPlan, history: History) -> _Restored:
        left_s = None
        if stored.deadline_s is not None:
            left_s = max(stored.started_at + stored.deadline_s - time.time(), LEAST_S)
        try:
            plan = model.admission.taken_over(stored, meta.id, left_s=left_s)
        except ConfigurationError as error:
            raise _NotHereError(str(error)) from error
        data = tuple(logged.data for logged in history.events)
        stats = DriveStats()
        try:
            events = [_known(parse_event(one)) for one in data]
        except ValidationError as error:
            raise JournalError("an event can't be read") from error
        if [event.seq for event in events] != list(range(len(events))):
            raise JournalError("events are missing in the log")
        past = replay(plan.rollout, read_inputs(history.inputs), events, stats)
        if isinstance(plan.retriever, FrozenRetriever):
            for outcome in past.outcomes:
                plan.retriever.skip(outcome.query)
        return _Restored(plan, past, stats, data, history.inputs)


def stored_plan_of(plan: Plan, *, grace_s: float | None, traceparent: str = "") -> StoredPlan:
    """Return what another gateway needs to know of a run that begins now."""
    options, prompt = plan.options, plan.rollout.segments[0]
    return StoredPlan(
        started_at=time.time(),
        deadline_s=options.deadline_s,
        grace_s=grace_s,
        model=plan.model,
        question=plan.question,
        profile=plan.rollout.profile.name,
        prompt=prompt.text,
        prompt_ids=prompt.ids,
        limits=plan.rollout.limits,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
        shaping=options.shaping,
        top_k=options.top_k,
        logprobs=options.logprobs,
        stream_interval=options.stream_interval,
        interval_s=options.pacing.fixed_s,
        cache_only=plan.cache_only,
        record=plan.record,
        caller=replace(plan.caller, former_key_id=""),
        traceparent=traceparent,
    )


def _is_worth_waiting(plan: bytes) -> bool:
    try:
        return not decode_bounds(plan).is_over(time.time(), patience_s=_PATIENCE_S)
    except PlanUnreadableError:
        return False


def _known(event: object) -> KnownEvent:
    if not isinstance(event, KnownEvent):
        raise NewerJournalError("an event is of another release")
    return event
