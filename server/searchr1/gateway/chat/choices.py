"""The choices of one completion: runs side by side, their events told apart by index."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing

from searchr1.gateway.access.admission import Plan
from searchr1.gateway.runs.drive import run_events
from searchr1.gateway.services import Services
from searchr1_client.events import KnownEvent


def choice_events(
    services: Services, plans: Sequence[Plan], *, run_id: str
) -> AsyncGenerator[tuple[int, KnownEvent], None]:
    """Drive each plan in a seat of its own and yield (index of the plan, event) as events happen.

    The first event of each comes first, in the order of ``plans``. Closing it frees the engine.

    Raises:
        NoSlotError: there are not seats for all; raised before the first event.
    """
    runs = [run_events(services, plan, run_id=run_id, index=index) for index, plan in enumerate(plans)]
    return runs[0] if len(runs) == 1 else _side_by_side(runs)


async def _side_by_side(
    runs: Sequence[AsyncGenerator[tuple[int, KnownEvent], None]],
) -> AsyncGenerator[tuple[int, KnownEvent], None]:
    async with AsyncExitStack() as stack:
        for run in runs:
            await stack.enter_async_context(aclosing(run))
        for first in [await anext(run) for run in runs]:
            yield first
        async with aclosing(_merged(runs)) as merged:
            async for indexed in merged:
                yield indexed


async def _merged(
    runs: Sequence[AsyncGenerator[tuple[int, KnownEvent], None]],
) -> AsyncGenerator[tuple[int, KnownEvent], None]:
    queue: asyncio.Queue[tuple[int, KnownEvent | None]] = asyncio.Queue()

    async def pump(index: int) -> None:
        try:
            async for indexed in runs[index]:
                queue.put_nowait(indexed)
        finally:
            queue.put_nowait((index, None))

    pumps = [asyncio.ensure_future(pump(index)) for index in range(len(runs))]
    num_open = len(pumps)
    try:
        while num_open:
            index, event = await queue.get()
            if event is not None:
                yield index, event
            else:
                await pumps[index]
                num_open -= 1
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
