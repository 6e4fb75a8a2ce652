"""One run from plan to wire events, with its metrics and its clean-up. Every route's run goes through here."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from searchr1.driver import DriveEvent, DriveStats, EngineErrored, Follow, SearchErrored, count_begun, drive
from searchr1.errors import EngineUnavailableError
from searchr1.gateway.access.admission import LEAST_S, Plan
from searchr1.gateway.failures import search_failure
from searchr1.gateway.log_lines import RUN_ID
from searchr1.gateway.run_metrics import LeftQueue
from searchr1.gateway.runs.errors import SeatExpiredError
from searchr1.gateway.runs.events import EventMapper, Queued
from searchr1.gateway.runs.journal import Journal
from searchr1.gateway.runs.replay import Past
from searchr1.gateway.runs.seats import Seat
from searchr1.gateway.services import Services
from searchr1.loop.types import ActionInvalid, AnswerCompleted, AnswerDelta, SearchRequested, Status, ThinkDelta
from searchr1.recorder import Recorder
from searchr1.turns import Turns
from searchr1_client.events import KnownEvent, Trajectory, Usage

if TYPE_CHECKING:
    from searchr1.gateway.tracing.run import RunTrace

logger = logging.getLogger(__name__)

_TEXT = (ThinkDelta, AnswerDelta)
_WHOLE = (Status.COMPLETED, Status.EXHAUSTED, Status.TRUNCATED)
_OWN_REFUSALS = frozenset({"budget", "not_cached"})
"""Kinds of failed searches that are no trouble of a provider."""


class RunDrive:
    """A run being driven, from its place in the queue on. It holds no seat: whoever drives it does."""

    def __init__(
        self,
        services: Services,
        plan: Plan,
        seat: Seat,
        *,
        run_id: str,
        created: int,
        asked: str | None = None,
        stats: DriveStats | None = None,
        journal: Journal | None = None,
        trace: "RunTrace | None" = None,
        past: Past | None = None,
        elapsed_s: float = 0.0,
        failure: str | None = None,
    ) -> None:
        """``asked`` is the question as people put it, where the model is asked more than that.

        ``created`` is in Unix seconds. ``journal`` is kept where the run may be taken over, ``trace`` where it is
        traced; both have the same ``stats``. One that was taken over has its
        ``past``, which is in ``plan``'s rollout and in ``stats`` already, and began ``elapsed_s`` seconds ago;
        it fails at once where ``failure`` names why.
        """
        self._services, self._plan, self._seat, self._run_id = services, plan, seat, run_id
        self._model = services.models[plan.model]
        self._stats = stats or DriveStats()
        self._journal, self._trace, self._past = journal, trace, past or Past()
        self._recorder = Recorder(plan.rollout, plan.options, self._stats, lambda event: search_failure(event.kind))
        self._mapper = EventMapper(
            run_id=run_id,
            model=plan.model,
            question=plan.question if asked is None else asked,
            created=created,
            rollout=plan.rollout,
            stats=self._stats,
            prices_usd=services.settings.search_costs_usd,
        )
        self._queries: set[str] = set()
        for outcome in self._past.outcomes:
            self._recorder.add(outcome)
            self._is_new(outcome.query)
        if past is not None:
            self._mapper.take_up(past.events, elapsed_s=elapsed_s)
        self._loop = asyncio.get_running_loop()
        self._started = time.perf_counter()
        self._elapsed_s = max(0.0, elapsed_s)
        self._first_text_s: float | None = None
        self._queue_s = 0.0
        self._is_whole_here = past is None
        """False for a run of which another process timed a part."""
        self._cause = ""
        """What the log is told of a failure."""
        self._failure: str | None = None
        """Code of a failure that the mapper does not know of."""
        self._fails_with = failure
        self._waiting: asyncio.Task[Any] | None = None
        """The reader's task, while it waits for an event."""
        self._is_stopped = self._is_cut = self._is_leaving = False

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        """Yield the wire events, the first one at once. Closing it, or cancelling its reader, frees the engine."""
        RUN_ID.set(self._run_id)
        services, rollout, mapper = self._services, self._plan.rollout, self._mapper
        services.under_way.add(self)
        with services.metrics.running.track_inprogress():
            try:
                if not mapper.num_events:
                    yield mapper.started()
                for owed in self._past.owed:
                    if (mapped := mapper.map(owed)) is not None:
                        yield mapped
                try:
                    async with aclosing(self._drive()) as driving:
                        self._waiting = asyncio.current_task(self._loop)
                        async for event in driving:
                            self._waiting = None
                            if isinstance(event, _TEXT):
                                if self._is_whole_here:
                                    self._first_text_s = self._first_text_s or self._duration_s()
                            elif not isinstance(event, Queued):
                                self._note(event)
                            if (mapped := mapper.map(event)) is not None:
                                yield mapped
                            if self._is_stopped:
                                break
                            self._waiting = asyncio.current_task(self._loop)
                        self._waiting = None
                except asyncio.CancelledError:
                    if not self._takes_back_cancel():
                        raise
                if self._fails_with is not None and rollout.status is None:
                    yield self.failed(self._fails_with)
                elif self._is_stopped and rollout.status is None:
                    yield self.failed("stopping")
            except Exception:
                self._failure = "internal"
                raise
            finally:
                self._waiting = None
                services.under_way.discard(self)
                if not self._is_leaving:
                    self._count()

    def stop(self) -> None:
        """Have the run end as failed because the server stops: its next event says so, and is its last."""
        if self._is_stopped or self._is_leaving:
            return
        self._is_stopped = True
        # Between two events it is its reader's turn, who finds the run stopped when he asks for the next one.
        if self._waiting is not None:
            self._waiting.cancel()
            self._is_cut = True

    def leave(self) -> bool:
        """Note that another process is to go on with the run: its reader closes ``events`` before their end.

        It is not counted here then. Returns False for a run that is being stopped.
        """
        self._is_leaving = not self._is_stopped
        return self._is_leaving

    def moved(self) -> None:
        """Note that another process goes on with the run: it is counted there, and its trace ends here."""
        self._is_leaving = True
        if self._trace is not None:
            self._trace.moved(first_text_s=self._first_text_s)

    def stayed(self) -> None:
        """Note that the run has ended here after all."""
        self._count()

    def started(self) -> KnownEvent:
        """Return the first event of a run whose ``events`` were closed before they gave it."""
        return self._mapper.started()

    def cancelled(self) -> KnownEvent:
        """End a run whose ``events`` were closed before their end; return its last event."""
        self._stop_rollout(Status.CANCELLED)
        self._end_trace(None)
        return self._mapper.ended(Status.CANCELLED)

    def failed(self, code: str = "internal") -> KnownEvent:
        """End a run that met an error of the server's own, or another that ``code`` names; return its last event."""
        self._stop_rollout(Status.FAILED)
        self._end_trace(code)
        return self._mapper.failed(code)

    def trajectory(self, usage: Usage) -> Trajectory:
        """Return the training record of the run."""
        return self._recorder.trajectory(
            self._plan.question, total_ms=usage.duration_ms, policy_version=self._model.policy_version or None
        )

    async def _drive(self) -> AsyncGenerator[DriveEvent | Queued, None]:
        """Yield the places in the queue, then what happens in the run."""
        plan, options = self._plan, self._plan.options
        if plan.rollout.status is not None or self._fails_with is not None:
            return  # Its owner before had come to its end, or it is given up.
        outcome: LeftQueue = "left"
        try:
            async with aclosing(self._seat.places()) as places:
                async for place in places:
                    yield Queued(place)
            outcome = "started"
        except SeatExpiredError:
            outcome = "expired"
        finally:
            self._queue_s = self._duration_s()
            # One that leaves waits on elsewhere, and one that was taken over has waited elsewhere: neither is whole.
            if self._is_whole_here and not self._is_leaving:
                self._services.metrics.run.left_queue(self._model.name, outcome, self._queue_s)
        if outcome == "expired":
            for event in self._stop_rollout(Status.DEADLINE):
                yield event
            return
        if options.deadline_s is not None:
            options = replace(options, deadline_s=max(options.deadline_s - self._duration_s(), LEAST_S))
        begun, self._past.begun = self._past.begun, None
        follow: Follow | None = None if self._journal is None else self._journal.follow
        turns: Turns = self._seat
        retriever = plan.retriever
        if self._trace is not None:
            self._trace.started(self._duration_s())
            turns, retriever, follow = self._trace.watched(turns, retriever, follow)
        driving = drive(
            plan.rollout,
            self._model.engine,
            retriever,
            options,
            self._stats,
            turns,
            begun=begun,
            follow=follow,
            retries=self._model.retries,
        )
        async with aclosing(driving):
            async for driven in driving:
                yield driven

    def _stop_rollout(self, status: Status) -> Sequence[DriveEvent]:
        """Stop the rollout, unless it has ended; return the events."""
        rollout = self._plan.rollout
        if rollout.status is not None:
            return ()
        if self._past.begun is not None:  # Its owner before sampled it, and nobody will ask for the rest.
            count_begun(rollout, self._past.begun)
        return rollout.stop(status)

    def _duration_s(self) -> float:
        return time.perf_counter() - self._started

    def _note(self, event: DriveEvent) -> None:
        """Count and record an event that is no text; log what clients are not told of it."""
        self._measure(event)
        self._recorder.add(event)
        if self._journal is not None:
            self._journal.add(event)
        if self._trace is not None:
            self._trace.add(event)
        if isinstance(event, SearchErrored):
            log = logger.info if event.kind in _OWN_REFUSALS else logger.warning
            log("run %s: search failed: %s: %s", self._run_id, event.kind, event.message)
        elif isinstance(event, EngineErrored):
            self._cause = str(event.error)
            if isinstance(event.error, EngineUnavailableError):
                self._services.readiness.engines[self._model.name].doubt()

    def _measure(self, event: DriveEvent) -> None:
        """Count an event that is no text."""
        metrics, model = self._services.metrics, self._model.name
        metrics.count(event)
        match event:
            case SearchRequested():
                if not self._queries and self._is_whole_here:
                    metrics.run.first_search(model, self._duration_s())
                if not self._is_new(event.query):
                    metrics.run.duplicate_query(model)
            case ActionInvalid():
                metrics.run.invalid_action(model, event.reason)
            case AnswerCompleted() if self._is_whole_here:
                metrics.run.answered(model, self._duration_s())

    def _is_new(self, query: str) -> bool:
        """Take a query, and tell whether the run had not sent it before, but for case and spaces."""
        words = " ".join(query.casefold().split())
        is_new = words not in self._queries
        self._queries.add(words)
        return is_new

    def _takes_back_cancel(self) -> bool:
        """Tell whether it was ``stop`` that cancelled the reader's task, and nobody else; the task then goes on."""
        task = asyncio.current_task()
        return self._is_cut and task is not None and task.uncancel() == 0

    def _count(self) -> None:
        self._seat.was_whole = self._plan.rollout.status in _WHOLE
        # A bug is logged by whoever finds it, with its traceback.
        if self._mapper.failure is not None and self._failure is None:
            cause = f": {self._cause}" if self._cause else ""
            logger.warning("run %s failed: %s%s", self._run_id, self._mapper.failure, cause)
        duration_s, rollout, metrics = self._duration_s(), self._plan.rollout, self._services.metrics
        if self._is_whole_here:
            metrics.run.overhead(
                rollout, self._stats, model=self._model.name, duration_s=duration_s, queue_s=self._queue_s
            )
        self._count_for_key()
        metrics.run_ended(
            rollout,
            self._stats,
            model=self._model.name,
            duration_s=self._elapsed_s + duration_s,
            first_text_s=self._first_text_s,
            failure=self._failure or self._mapper.failure,
        )
        self._end_trace(self._failure or self._mapper.failure)

    def _end_trace(self, failure: str | None) -> None:
        if self._trace is not None:
            self._trace.ended(failure=failure, first_text_s=self._first_text_s)

    def _count_for_key(self) -> None:
        access, rollout = self._services.access, self._plan.rollout
        tokens_out = rollout.num_sampled_tokens
        tokens_in = sum(len(segment.ids) for segment in rollout.segments if not segment.sampled)
        searches = rollout.num_searches
        access.count_run(self._plan.caller, tokens_in=tokens_in, tokens_out=tokens_out, searches=searches)


def stop_runs(services: Services) -> int:
    """Have every run that is under way end as failed because the server stops; return their number."""
    runs = list(services.under_way)
    for run in runs:
        run.stop()
    return len(runs)


async def run_events(
    services: Services, plan: Plan, *, run_id: str, index: int = 0
) -> AsyncGenerator[tuple[int, KnownEvent], None]:
    """Drive ``plan`` in a seat and yield its wire events, the first one at once. Closing it frees the engine.

    Each comes with ``index``, that of the run among the choices of one request.

    Raises:
        NoSlotError: no seat is free, and the queue is full; raised before the first event.
        LimitReachedError: the caller's key has as many runs as it may have; raised before the first event.
    """
    with await services.access.limits.permit(plan.caller), seat_of(services, plan) as seat:
        stats = DriveStats()
        trace = trace_of(services, plan, stats, run_id=run_id)
        run = RunDrive(services, plan, seat, run_id=run_id, created=int(time.time()), stats=stats, trace=trace)
        async with aclosing(run.events()) as events:
            async for event in events:
                yield index, event


def trace_of(
    services: Services, plan: Plan, stats: DriveStats, *, run_id: str, num_takeovers: int = 0
) -> "RunTrace | None":
    """Begin the trace of a run; None where it is not traced."""
    if services.tracing is None:
        return None
    return services.tracing.run(plan, services.models[plan.model], stats, run_id=run_id, num_takeovers=num_takeovers)


def seat_of(services: Services, plan: Plan) -> AbstractContextManager[Seat]:
    """Return a seat for ``plan``, or a place in the queue. Entering raises ``NoSlotError`` where there is none."""
    return services.models[plan.model].seats.seat(
        plan.caller,
        num_ids=plan.num_ids,
        session=plan.options.session,
        deadline_s=plan.options.deadline_s,
    )
