"""One run from plan to wire events, with its slot, its metrics and its clean-up. Every route goes through here."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import Request
from starlette.requests import ClientDisconnect

from searchr1.driver import DriveStats, drive
from searchr1.gateway.admission import Plan
from searchr1.gateway.errors import ApiError, engine_status
from searchr1.gateway.services import Services
from searchr1.gateway.sse import Narrator
from searchr1.loop.types import AnswerDelta, ThinkDelta
from searchr1_client.events import KnownEvent, Run
from searchr1_client.fold import RunFold


async def run_events(services: Services, plan: Plan, *, run_id: str) -> AsyncGenerator[KnownEvent, None]:
    """Drive ``plan`` and yield its wire events, the first one at once. Closing it frees the engine.

    Raises:
        ApiError: no slot is free; raised before the first event.
    """
    settings, metrics, rollout = services.settings, services.metrics, plan.rollout
    stats = DriveStats()
    narrator = Narrator(run_id=run_id, model=settings.public_name, question=plan.question, rollout=rollout, stats=stats)
    started = time.perf_counter()
    first_text_s: float | None = None
    with services.admission.slot(), metrics.running.track_inprogress():
        try:
            yield narrator.started()
            async with aclosing(drive(rollout, services.engine, plan.retriever, plan.options, stats)) as events:
                async for event in events:
                    if first_text_s is None and isinstance(event, ThinkDelta | AnswerDelta):
                        first_text_s = time.perf_counter() - started
                    metrics.saw(event)
                    if (told := narrator.tell(event)) is not None:
                        yield told
        finally:
            metrics.run_ended(rollout, stats, duration_s=time.perf_counter() - started, first_text_s=first_text_s)


async def whole_run(services: Services, plan: Plan, *, run_id: str, request: Request) -> Run:
    """Drive ``plan`` to its end and fold its events. If the client leaves first, the engine is freed at once.

    Raises:
        ApiError: no slot is free, or the engine failed.
        ClientDisconnect: the client left.
    """
    folding = asyncio.ensure_future(_fold(services, plan, run_id=run_id))
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({folding, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not folding.done():
            raise ClientDisconnect
        run = folding.result()
    finally:
        for task in (folding, leaving):
            task.cancel()
        await asyncio.gather(folding, leaving, return_exceptions=True)
    if run.error is not None:
        raise ApiError(engine_status(run.error.code), run.error.message, code=run.error.code)
    return run


async def _fold(services: Services, plan: Plan, *, run_id: str) -> Run:
    fold = RunFold(created=int(time.time()))
    async with aclosing(run_events(services, plan, run_id=run_id)) as events:
        async for event in events:
            fold.add(event)
    return fold.run()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
