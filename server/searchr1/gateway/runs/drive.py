"""One run from plan to wire events, with its metrics and its clean-up. Every route's run goes through here."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from searchr1.driver import DriveStats, drive
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.runs.events import EventMapper
from searchr1.gateway.runs.record import Recorder
from searchr1.gateway.services import Services
from searchr1.loop.types import AnswerDelta, Status, ThinkDelta
from searchr1_client.events import KnownEvent, Trajectory, Usage


class RunDrive:
    """An admitted run being driven. It holds no slot: whoever drives it does."""

    def __init__(self, services: Services, plan: Plan, *, run_id: str, created: int, asked: str | None = None) -> None:
        """``asked`` is the question as people put it, where the model is asked more than that.

        ``created`` is in Unix seconds.
        """
        self._services, self._plan = services, plan
        self._stats = DriveStats()
        self._recorder = Recorder(plan.rollout, plan.options, self._stats)
        self._mapper = EventMapper(
            run_id=run_id,
            model=services.settings.public_name,
            question=plan.question if asked is None else asked,
            created=created,
            rollout=plan.rollout,
            stats=self._stats,
            prices_usd=services.settings.search_costs_usd,
        )
        self._started = time.perf_counter()

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        """Yield the wire events, the first one at once. Closing it, or cancelling its reader, frees the engine."""
        services, plan, mapper, stats = self._services, self._plan, self._mapper, self._stats
        metrics = services.metrics
        first_text_s: float | None = None
        with metrics.running.track_inprogress():
            try:
                yield mapper.started()
                async with aclosing(
                    drive(plan.rollout, services.run_engine or services.engine, plan.retriever, plan.options, stats)
                ) as driving:
                    async for event in driving:
                        if first_text_s is None and isinstance(event, ThinkDelta | AnswerDelta):
                            first_text_s = time.perf_counter() - self._started
                        metrics.count(event)
                        self._recorder.add(event)
                        if (mapped := mapper.map(event)) is not None:
                            yield mapped
            finally:
                duration_s = time.perf_counter() - self._started
                metrics.run_ended(plan.rollout, stats, duration_s=duration_s, first_text_s=first_text_s)

    def started(self) -> KnownEvent:
        """Return the first event of a run whose ``events`` were closed before they gave it."""
        return self._mapper.started()

    def cancelled(self) -> KnownEvent:
        """End a run whose ``events`` were closed before their end; return its last event."""
        if self._plan.rollout.status is None:
            self._plan.rollout.stop(Status.CANCELLED)
        return self._mapper.ended(Status.CANCELLED)

    def failed(self) -> KnownEvent:
        """End a run that met an error of the server's own; return its last event."""
        if self._plan.rollout.status is None:
            self._plan.rollout.stop(Status.FAILED)
        return self._mapper.failed("internal", "The server met an error of its own; its log has the details.")

    def trajectory(self, usage: Usage) -> Trajectory:
        """Return the training record of the run."""
        return self._recorder.trajectory(
            self._plan.question, total_ms=usage.duration_ms, policy_version=self._services.policy_version or None
        )


async def run_events(services: Services, plan: Plan, *, run_id: str) -> AsyncGenerator[KnownEvent, None]:
    """Drive ``plan`` in a slot and yield its wire events, the first one at once. Closing it frees the engine.

    Raises:
        NoSlotError: no slot is free; raised before the first event.
    """
    with services.admission.slot():
        async with aclosing(RunDrive(services, plan, run_id=run_id, created=int(time.time())).events()) as events:
            async for event in events:
                yield event
