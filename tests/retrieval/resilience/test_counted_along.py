"""Budgets while Redis does not answer: each process holds them by its own count, and tells of it afterwards."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.retrieval.resilience.counted_along import CountedAlong
from searchr1.retrieval.resilience.counters import CounterError, MemoryCounters, Quota, Refused, Spend
from tests.retrieval.resilience.fakes import Notes, failed, found
from tests.retrieval.resilience.test_budget import COSTS_USD, Account, searches
from tests.support.virtual_time import now_s, virtual

KEY = "{t}:key"


class Shared:
    """A ``CounterStore`` that others may share, and that does not answer while ``is_down``."""

    def __init__(self) -> None:
        self.counters, self.is_down, self.is_shielded = MemoryCounters(clock=now_s), False, False

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.is_down:
            raise CounterError("down")

    async def reserve(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        if self.is_shielded:
            refused = await self.counters.reserve(quotas, spend, window_s)
            await asyncio.sleep(0)
            return refused
        await self._answer()
        return await self.counters.reserve(quotas, spend, window_s)

    async def refusal(self, quotas: Sequence[Quota], spend: Spend, window_s: float) -> Refused | None:
        await self._answer()
        return await self.counters.refusal(quotas, spend, window_s)

    async def adjust(self, keys: Sequence[str], change: Spend) -> None:
        await self._answer()
        await self.counters.adjust(keys, change)


def counters(shared: Shared) -> CountedAlong:
    return CountedAlong(shared, own=MemoryCounters(clock=now_s), owed=MemoryCounters(clock=now_s))


def budgets(store: CountedAlong, **config: Any) -> Budgets:
    return Budgets(store, BudgetConfig(COSTS_USD, **config), observer=Notes())


@virtual
async def test_without_shared_counters_a_process_holds_limits_by_its_own_count() -> None:
    shared = Shared()
    shared.is_down = True
    one, other = (budgets(counters(shared), per_key=2) for _ in range(2))
    assert await searches(one, found(), 3) == ["found", "found", "budget"]
    assert await searches(other, found(), 3) == ["found", "found", "budget"]
    assert await searches(one, found(), 1, Account("other")) == ["found"]


@virtual
async def test_what_was_counted_before_an_outage_counts_in_it() -> None:
    shared = Shared()
    limited = budgets(counters(shared), per_key=3)
    assert await searches(limited, found(), 2) == ["found", "found"]
    shared.is_down = True
    assert await searches(limited, found(), 2) == ["found", "budget"]


@virtual
async def test_what_is_spent_in_an_outage_is_told_once_it_is_over() -> None:
    shared = Shared()
    one, other = (budgets(counters(shared), per_key=5) for _ in range(2))
    shared.is_down = True
    assert await searches(one, found(), 3) == ["found"] * 3
    shared.is_down = False
    assert await searches(other, found(), 1) == ["found"]
    assert await searches(one, found(), 2) == ["found", "budget"]
    assert await searches(other, found(), 1) == ["budget"]


@virtual
async def test_the_look_whether_a_key_is_spent_tells_of_an_outage_too() -> None:
    shared, account = Shared(), Account(searches_per_window=2)
    store = counters(shared)
    limited = budgets(store)
    shared.is_down = True
    assert await searches(limited, found(), 2, account) == ["found", "found"]
    assert await limited.spent_key(account) is not None
    shared.is_down = False
    assert await limited.spent_key(account) is not None
    assert store.outages == 5, "two reservations, what each really cost, and a look"


@virtual
async def test_a_search_that_cost_nothing_is_given_back_in_an_outage_and_after_it() -> None:
    shared = Shared()
    limited = budgets(counters(shared), per_key=1)
    shared.is_down = True
    assert await searches(limited, failed("unavailable"), 3) == ["unavailable"] * 3
    shared.is_down = False
    assert await searches(limited, failed("unavailable"), 3) == ["unavailable"] * 3
    assert await searches(limited, found(), 2) == ["found", "budget"]


@virtual
async def test_shared_counters_decide_while_they_answer() -> None:
    shared = Shared()
    limited = counters(shared)
    quotas = [Quota("key", KEY, 2, None)]
    assert [await limited.reserve(quotas, Spend(1, 0), 60) for _ in range(2)] == [None, None]
    await shared.counters.adjust([KEY], Spend(-1, 0))
    assert await limited.reserve(quotas, Spend(1, 0), 60) is None, "another process gave one back"
    shared.is_down = True
    assert await limited.reserve(quotas, Spend(1, 0), 60) is not None


@virtual
async def test_what_others_spent_is_not_charged_here() -> None:
    shared = Shared()
    limited, quotas = counters(shared), [Quota("key", KEY, 2, None)]
    await shared.counters.reserve(quotas, Spend(2, 0), 60)
    assert await limited.reserve(quotas, Spend(1, 0), 60) is not None
    shared.is_down = True
    assert [await limited.reserve(quotas, Spend(1, 0), 60) is None for _ in range(3)] == [True, True, False]


@virtual
async def test_what_is_owed_is_forgotten_with_its_window() -> None:
    shared = Shared()
    limited = budgets(counters(shared), per_key=3, window_s=60)
    shared.is_down = True
    assert await searches(limited, found(), 2) == ["found", "found"]
    await asyncio.sleep(61)
    shared.is_down = False
    assert await searches(limited, found(), 4) == ["found"] * 3 + ["budget"]


@virtual
async def test_what_is_owed_is_told_once_however_many_ask_at_once() -> None:
    shared = Shared()
    limited = counters(shared)
    quotas = [Quota("key", KEY, 100, None)]
    shared.is_down = True
    for _ in range(4):
        await limited.reserve(quotas, Spend(1, 7), 60)
    shared.is_down = False
    await asyncio.gather(*(limited.reserve(quotas, Spend(1, 7), 60) for _ in range(5)))
    assert shared.counters.held(KEY) == Spend(9, 63)


@pytest.mark.parametrize("per_key", [1, 3])
@settings(max_examples=100)
@given(steps=st.lists(st.tuples(st.integers(0, 1), st.booleans()), max_size=40))
@virtual
async def test_no_process_passes_a_limit_by_itself(per_key: int, steps: list[tuple[int, bool]]) -> None:
    shared = Shared()
    processes = [budgets(counters(shared), per_key=per_key) for _ in range(2)]
    num_found = [0, 0]
    for process, shared.is_down in steps:
        [outcome] = await searches(processes[process], found(), 1)
        num_found[process] += outcome == "found"
    assert max(num_found) <= per_key


@virtual
async def test_a_caller_that_leaves_while_it_tells_has_nothing_told_twice() -> None:
    shared = Shared()
    store = counters(shared)
    quota = Quota("key", KEY, None, None)
    shared.is_down = True
    for _ in range(3):
        assert await store.reserve([quota], Spend(1, 0), 60) is None
    shared.is_down = False
    # As in Redis, what is on its way arrives though nobody waits for it any more.
    shared.is_shielded = True
    for _ in range(2):
        leaving = asyncio.ensure_future(store.refusal([quota], Spend(0, 0), 60))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert shared.counters.held(KEY) == Spend(3, 0)
