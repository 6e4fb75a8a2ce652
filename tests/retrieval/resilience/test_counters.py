import asyncio
from collections.abc import Sequence

import pytest

from searchr1.retrieval.resilience.counters import MemoryCounters, Quota, Refused, Spend
from tests.support.virtual_time import now_s, virtual

ONE = Spend(1, 100)


def quota(name: str, searches: int | None = None, micros: int | None = None) -> Quota:
    return Quota(name, f"{{t}}:{name}", searches, micros)


async def times(store: MemoryCounters, quotas: Sequence[Quota], count: int) -> list[bool]:
    return [await store.reserve(quotas, ONE, 60) is None for _ in range(count)]


@virtual
async def test_a_refused_reservation_changes_no_counter() -> None:
    store = MemoryCounters(clock=now_s)
    assert await times(store, [quota("tight", searches=1)], 1) == [True]
    assert await times(store, [quota("wide", searches=2), quota("tight", searches=1)], 3) == [False] * 3
    assert await times(store, [quota("wide", searches=2)], 3) == [True, True, False]


@virtual
async def test_ended_counters_are_dropped() -> None:
    store = MemoryCounters(clock=now_s)
    for number in range(100):
        await times(store, [quota(str(number))], 1)
    await asyncio.sleep(61)
    await times(store, [quota("new")], 1)
    assert len(store._counters) == 1


@virtual
async def test_a_counter_that_has_ended_is_not_brought_back_by_an_adjustment() -> None:
    store = MemoryCounters(clock=now_s)
    await times(store, [quota("a", searches=1)], 1)
    await asyncio.sleep(61)
    await store.adjust(["{t}:a"], Spend(-1, -100))
    assert await times(store, [quota("a", searches=1)], 2) == [True, False]


@virtual
async def test_counters_do_not_fall_below_zero() -> None:
    store = MemoryCounters(clock=now_s)
    await times(store, [quota("a", searches=2)], 1)
    await store.adjust(["{t}:a"], Spend(-5, -1000))
    assert await times(store, [quota("a", searches=2)], 3) == [True, True, False]


@pytest.mark.parametrize("limits", [(2, None), (None, 250)])
@virtual
async def test_either_bound_refuses_and_tells_when_to_come_back(limits: tuple[int | None, int | None]) -> None:
    store = MemoryCounters(clock=now_s)
    await times(store, [quota("a", *limits)], 2)
    await asyncio.sleep(20)
    refused = await store.reserve([quota("a", *limits)], ONE, 60)
    assert isinstance(refused, Refused)
    assert (refused.scope, round(refused.retry_after_s)) == ("a", 40)
