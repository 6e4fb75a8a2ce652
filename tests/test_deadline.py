"""A deadline ends what is awaited, whoever awaits it, and takes no cancellation for its own that is another's."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from searchr1.deadline import Deadline, DeadlinePassedError


async def items(*pauses_s: float) -> AsyncGenerator[int, None]:
    for number, pause_s in enumerate(pauses_s):
        if pause_s:
            await asyncio.sleep(pause_s)
        yield number


async def test_items_come_until_their_end() -> None:
    for deadline_s in (None, 60.0):
        stream = items(0, 0, 0.001)
        with Deadline(deadline_s).reading() as reading:
            assert [await reading.next(stream) for _ in range(4)] == [0, 1, 2, None]


async def test_what_is_awaited_at_the_deadline_ends() -> None:
    stream = items(0, 60)
    with Deadline(0.02).reading() as reading:
        assert await reading.next(stream) == 0
        with pytest.raises(DeadlinePassedError):
            await reading.next(stream)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
    assert await anext(stream, None) is None  # It was cancelled, and has ended.


async def test_after_the_deadline_nothing_is_awaited_that_would_be_ready() -> None:
    stream = items(0, 0)
    with Deadline(0.0).reading() as reading:
        await asyncio.sleep(0.001)
        with pytest.raises(DeadlinePassedError):
            await reading.next(stream)
    assert await anext(stream) == 0


async def test_a_consumer_s_own_time_is_not_cancelled() -> None:
    stream = items(0, 0)
    with Deadline(0.01).reading() as reading:
        assert await reading.next(stream) == 0
        await asyncio.sleep(0.03)
        with pytest.raises(DeadlinePassedError):
            await reading.next(stream)
    await stream.aclose()


async def test_no_timer_is_left() -> None:
    with Deadline(0.01).reading() as reading:
        assert await reading.next(items(0)) == 0
    await asyncio.sleep(0.03)
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("deadline_s", [None, 60.0])
async def test_a_cancellation_of_another_s_stays_one(deadline_s: float | None) -> None:
    async def read() -> None:
        with Deadline(deadline_s).reading() as reading:
            await reading.next(items(60))

    task = asyncio.create_task(read())
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_at_the_moment_of_the_deadline_stays_one() -> None:
    loop = asyncio.get_running_loop()

    async def read() -> None:
        with Deadline(0.01).reading() as reading:
            loop.call_at(reading._ends_at, task.cancel)  # type: ignore[arg-type]
            await reading.next(items(60))

    task = asyncio.create_task(read())
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_each_item_may_be_awaited_by_another_task() -> None:
    stream = items(0, 0, 60)
    with Deadline(0.03).reading() as reading:
        for number in range(2):
            assert await asyncio.create_task(reading.next(stream)) == number
        with pytest.raises(DeadlinePassedError):
            await asyncio.create_task(reading.next(stream))
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_a_stream_that_swallows_the_cancellation_leaves_none_behind() -> None:
    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            yield 7

    stream = stubborn()
    with Deadline(0.01).reading() as reading:
        assert await reading.next(stream) == 7
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]
        with pytest.raises(DeadlinePassedError):
            await reading.next(stream)
    await stream.aclose()
