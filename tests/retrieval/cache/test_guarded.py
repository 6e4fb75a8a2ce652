import asyncio

import pytest

from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.store import StoreError, StoreRefusedError
from tests.retrieval.cache.fakes import Moody
from tests.support.virtual_time import now_s, virtual

TICK_S = 1e-3


async def skipped_s(store: GuardedStore, key: str = "k") -> float:
    """Return the seconds that ``store`` takes to say that it does not answer."""
    began_s = now_s()
    with pytest.raises(StoreError):
        await store.get(key)
    return now_s() - began_s


@virtual
async def test_what_the_store_answers_is_passed_on() -> None:
    store = GuardedStore(Moody())
    assert await store.get("k") is None
    await store.set("k", b"v", 60)
    assert (await store.get("k"), await store.get_now("k")) == (b"v", b"v")
    assert await store.claim("c", "mine", 60) == "mine"
    await store.release("c", "mine")
    assert await store.claim("c", "yours", 60) == "yours"


@virtual
async def test_a_store_that_hangs_costs_its_bound_once_and_then_nothing() -> None:
    inner = Moody()
    inner.hangs = True
    store = GuardedStore(inner, timeout_s=0.05, cooldown_s=1.0)
    waits_s = await asyncio.gather(*(skipped_s(store, f"k{number}") for number in range(100)))
    assert max(waits_s) <= 0.05 + TICK_S
    assert max([await skipped_s(store) for _ in range(100)]) <= TICK_S
    await store.aclose()


@virtual
async def test_after_a_cooldown_one_operation_probes_and_the_others_do_not_wait() -> None:
    inner = Moody()
    inner.hangs = True
    store = GuardedStore(inner, timeout_s=0.05, cooldown_s=1.0)
    await skipped_s(store)
    await asyncio.sleep(1.1)
    asked = len(inner.asked)
    waits_s = await asyncio.gather(*(skipped_s(store, f"k{number}") for number in range(20)))
    assert len(inner.asked) == asked + 1
    assert sorted(wait_s > 0.04 for wait_s in waits_s) == [False] * 19 + [True]
    await store.aclose()


@virtual
async def test_a_store_that_works_again_is_used_again() -> None:
    inner = Moody()
    inner.fails = True
    store = GuardedStore(inner, cooldown_s=1.0)
    await skipped_s(store)
    inner.fails = False
    await skipped_s(store)
    await asyncio.sleep(1.0)
    assert await store.get("k") is None
    assert await store.get("other") is None


@virtual
async def test_late_operations_that_fill_all_places_do_not_hold_up_the_probes() -> None:
    inner = Moody()
    inner.hangs = True
    store = GuardedStore(inner, timeout_s=0.05, cooldown_s=0.2, late_timeout_s=5.0, max_concurrent=2)
    await asyncio.gather(*(skipped_s(store, f"k{number}") for number in range(2)))
    total_s = 0.0
    for _ in range(100):
        await asyncio.sleep(0.01)
        total_s += await skipped_s(store)
    assert total_s <= 0.3
    inner.hangs = False
    await asyncio.sleep(6)
    assert await store.get("k") is None
    await store.aclose()


@virtual
async def test_a_late_answer_does_not_end_the_cooldown() -> None:
    inner = Moody()
    inner.delay_s = 0.1
    store = GuardedStore(inner, timeout_s=0.05, cooldown_s=1.0)
    waits_s = []
    for _ in range(50):
        waits_s.append(await skipped_s(store))
        await asyncio.sleep(0.02)
    assert sum(waits_s) <= 0.15


@virtual
async def test_a_late_operation_goes_on_and_its_effect_stays() -> None:
    inner = Moody()
    inner.delay_s = 0.1
    store = GuardedStore(inner, timeout_s=0.05, late_timeout_s=2.0)
    with pytest.raises(StoreError):
        await store.set("k", b"v", 60)
    await asyncio.sleep(0.1)
    assert await inner.inner.get("k") == b"v"


@virtual
async def test_a_refusal_is_told_and_causes_no_cooldown() -> None:
    inner = Moody()
    inner.refuses = True
    store = GuardedStore(inner)
    for _ in range(3):
        with pytest.raises(StoreRefusedError):
            await store.set("k", b"v", 60)
        assert await store.get("k") is None


@virtual
async def test_waiting_for_a_place_says_nothing_of_the_store() -> None:
    inner = Moody()
    inner.delay_s = 0.03
    store = GuardedStore(inner, timeout_s=0.05, max_concurrent=1)
    answers = await asyncio.gather(*(store.get_now(f"k{number}") for number in range(10)), return_exceptions=True)
    assert sum(answer is None for answer in answers) in (1, 2)
    inner.delay_s = 0.0
    await asyncio.sleep(0.1)
    assert await store.get("k") is None


@virtual
async def test_identical_reads_are_one() -> None:
    inner = Moody()
    inner.delay_s = 0.01
    store = GuardedStore(inner)
    await asyncio.gather(*(store.get("k") for _ in range(50)))
    assert inner.asked == ["get"]
    await asyncio.gather(store.get("k"), store.get_now("k"))
    assert inner.asked == ["get"] * 3


@virtual
async def test_who_stops_waiting_disturbs_no_other_reader() -> None:
    inner = Moody()
    inner.delay_s = 0.02
    await inner.inner.set("k", b"v", 1e9)
    store = GuardedStore(inner)
    readers = [asyncio.create_task(store.get("k")) for _ in range(3)]
    await asyncio.sleep(0.01)
    readers[0].cancel()
    assert await asyncio.gather(*readers[1:]) == [b"v", b"v"]
    assert await store.get("k") == b"v"


@virtual
async def test_closing_leaves_no_task() -> None:
    inner = Moody()
    inner.hangs = True
    store = GuardedStore(inner, late_timeout_s=1000)
    await skipped_s(store)
    await store.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_nobody_joins_a_read_of_a_store_in_cooldown() -> None:
    inner = Moody()
    inner.hangs = True
    store = GuardedStore(inner, timeout_s=0.05, cooldown_s=1.0)
    late = asyncio.create_task(skipped_s(store, "a"))
    await asyncio.sleep(0.03)
    later = asyncio.create_task(skipped_s(store, "b"))
    await asyncio.sleep(0.03)
    assert await skipped_s(store, "b") <= TICK_S
    await asyncio.gather(late, later)
    await store.aclose()
