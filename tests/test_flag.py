"""The flag against ``asyncio.Event``: both do the same in the same situations."""

import asyncio
from collections.abc import Callable

import pytest

from searchr1.flag import Flag

Either = Flag | asyncio.Event


@pytest.fixture(params=[Flag, asyncio.Event])
def flag(request: pytest.FixtureRequest) -> Either:
    make: Callable[[], Either] = request.param
    return make()


async def waiting(flag: Either, number: int) -> list["asyncio.Task[object]"]:
    tasks: list[asyncio.Task[object]] = [asyncio.ensure_future(flag.wait()) for _ in range(number)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_all_that_wait_are_woken(flag: Either) -> None:
    tasks = await waiting(flag, 3)
    flag.set()
    await asyncio.gather(*tasks)
    assert flag.is_set()
    await flag.wait()


async def test_a_flag_that_is_cleared_at_once_still_wakes_who_waited(flag: Either) -> None:
    tasks = await waiting(flag, 2)
    flag.set()
    flag.clear()
    await asyncio.gather(*tasks)
    assert not flag.is_set()
    for later in await waiting(flag, 1):
        later.cancel()


async def test_one_that_gives_up_takes_nobody_along(flag: Either) -> None:
    first, second, third = await waiting(flag, 3)
    first.cancel()
    await asyncio.sleep(0)
    second.cancel()
    flag.set()  # The second one's cancellation has not reached it yet.
    await third
    assert first.cancelled()
    with pytest.raises(asyncio.CancelledError):
        await second
    flag.clear()
    (fourth,) = await waiting(flag, 1)
    flag.set()
    await fourth
