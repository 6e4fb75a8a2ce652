import asyncio
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.errors import ConfigurationError
from searchr1.retrieval.base import CacheState, Found, SearchFailed, SearchOutcome
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import BudgetedRetriever, Budgets
from searchr1.retrieval.resilience.counters import MemoryCounters
from tests.retrieval.resilience.fakes import Notes, Script, Step, failed, found
from tests.support.virtual_time import now_s, virtual

COSTS_USD = {"dear": 0.01, "cheap": 0.001}


@dataclass(frozen=True, slots=True)
class Account:
    tenant: str = "acme"
    key_id: str = "one"
    searches_per_window: int | None = None


def budgets(notes: Notes, **config: Any) -> Budgets:
    return Budgets(MemoryCounters(clock=now_s), BudgetConfig(COSTS_USD, **config), observer=notes)


def cached(state: CacheState) -> Found:
    return replace(found(provider="dear"), cache=state)


async def searches(budgets: Budgets, outcome: SearchOutcome, count: int, account: Account | None = None) -> list[str]:
    retriever = BudgetedRetriever(Script([outcome]), budgets, account or Account())
    outcomes = [await retriever.search("q", 3, 10) for _ in range(count)]
    return [outcome.kind if isinstance(outcome, SearchFailed) else "found" for outcome in outcomes]


@virtual
async def test_a_key_searches_until_its_budget_is_used_up() -> None:
    notes, script = Notes(), Script([found(provider="cheap")])
    retriever = BudgetedRetriever(script, budgets(notes, per_key=2, window_s=60), Account())
    outcomes = [await retriever.search("q", 3, 10) for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [Found, Found, SearchFailed]
    refusal = outcomes[-1]
    assert isinstance(refusal, SearchFailed)
    assert (refusal.kind, refusal.message) == ("budget", "the search budget of this API key is used up")
    assert refusal.retry_after_s == pytest.approx(60, abs=0.1)
    assert (script.calls, notes.refused, notes.costs) == (2, ["key"], [("cheap", 0.001)] * 2)


@virtual
async def test_a_window_ends_and_another_begins() -> None:
    limited = budgets(Notes(), per_key=1, window_s=60)
    assert await searches(limited, found(), 2) == ["found", "budget"]
    await asyncio.sleep(60)
    assert await searches(limited, found(), 2) == ["found", "budget"]


@virtual
async def test_keys_of_a_tenant_share_its_budget_and_tenants_do_not() -> None:
    notes = Notes()
    limited = budgets(notes, per_key=2, per_tenant=3)
    assert await searches(limited, found(), 3, Account("acme", "one")) == ["found", "found", "budget"]
    assert await searches(limited, found(), 2, Account("acme", "two")) == ["found", "budget"]
    assert await searches(limited, found(), 2, Account("other", "one")) == ["found", "found"]
    assert notes.refused == ["key", "tenant"]


@virtual
async def test_dollars_are_bounded_by_what_was_really_paid() -> None:
    notes = Notes()
    limited = budgets(notes, usd_per_tenant=0.02)
    assert await searches(limited, found(provider="cheap"), 5) == ["found"] * 5
    assert await searches(limited, found(provider="dear"), 2) == ["found", "budget"]
    assert sum(usd for _, usd in notes.costs) == pytest.approx(0.015)


@pytest.mark.parametrize("state", ["hit", "stale"])
@virtual
async def test_the_cache_costs_nothing(state: CacheState) -> None:
    notes = Notes()
    limited = budgets(notes, per_key=1, usd_per_key=0.01)
    assert await searches(limited, cached(state), 5) == ["found"] * 5
    assert await searches(limited, cached("miss"), 2) == ["found", "budget"]
    assert notes.costs == [("dear", 0.01)]


@pytest.mark.parametrize("kind", ["unavailable", "rate_limited", "rejected", "not_cached", "budget"])
@virtual
async def test_failures_that_nobody_bills_cost_nothing(kind: str) -> None:
    notes = Notes()
    limited = budgets(notes, per_key=1)
    assert await searches(limited, failed(kind), 3) == [kind] * 3
    assert await searches(limited, found(), 1) == ["found"]
    assert notes.refused == []


@pytest.mark.parametrize("kind", ["timeout", "bad_response"])
@virtual
async def test_failures_that_may_have_been_billed_are_charged(kind: str) -> None:
    notes = Notes()
    limited = budgets(notes, per_key=1)
    assert await searches(limited, replace(failed(kind), provider="dear"), 2) == [kind, "budget"]
    assert notes.costs == [("dear", 0.01)]


@virtual
async def test_concurrent_searches_do_not_pass_a_limit_together() -> None:
    script = Script([Step(found(provider="dear"), 1)])
    retriever = BudgetedRetriever(script, budgets(Notes(), per_tenant=9, usd_per_tenant=0.05), Account())
    outcomes = await asyncio.gather(*(retriever.search("q", 3, 10) for _ in range(50)))
    assert sum(isinstance(outcome, Found) for outcome in outcomes) == script.calls == 5


@virtual
async def test_a_cancelled_search_stays_charged() -> None:
    limited = budgets(Notes(), per_key=1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(BudgetedRetriever(Script([Step(found(), 5)]), limited, Account()).search("q", 3, 10), 1)
    assert await searches(limited, found(), 1) == ["budget"]


@virtual
async def test_without_limits_costs_are_still_told() -> None:
    notes = Notes()
    assert await searches(budgets(notes), found(provider="dear"), 3) == ["found"] * 3
    assert notes.costs == [("dear", 0.01)] * 3


@virtual
async def test_a_limit_of_zero_refuses_everything() -> None:
    assert await searches(budgets(Notes(), per_key=0), cached("hit"), 1) == ["budget"]


def test_prices_are_of_a_provider_or_of_its_family() -> None:
    costs = BudgetConfig({"tavily": 0.008, "tavily:advanced": 0.016})
    assert [costs.usd(name) for name in ("tavily", "tavily:basic", "tavily:advanced", "other", "")] == [
        0.008, 0.008, 0.016, 0.0, 0.0,
    ]  # fmt: skip
    assert costs.highest_usd() == 0.016
    assert BudgetConfig().highest_usd() == 0


def test_a_config_without_prices_and_limits_counts_nothing() -> None:
    assert not BudgetConfig(window_s=5).counts_anything
    assert BudgetConfig({"tavily": 0.0}).counts_anything
    assert BudgetConfig(usd_per_tenant=0.0).counts_anything


@pytest.mark.parametrize("usd", [-0.1, float("nan"), float("inf")])
def test_an_impossible_price_is_refused(usd: float) -> None:
    with pytest.raises(ConfigurationError, match="price"):
        BudgetConfig({"dear": usd})


OUTCOMES: st.SearchStrategy[SearchOutcome] = st.one_of(
    st.builds(
        lambda provider, cache: replace(found(provider=provider), cache=cache),
        st.sampled_from(["dear", "cheap", "free"]),
        st.sampled_from(["hit", "miss", "stale"]),
    ),
    st.builds(failed, st.sampled_from(["timeout", "bad_response", "unavailable", "rejected"])),
)


@settings(max_examples=100)
@given(
    steps=st.lists(st.builds(Step, OUTCOMES, st.floats(0, 5)), min_size=1, max_size=20),
    most=st.integers(0, 10),
    micros=st.integers(0, 60_000),
)
@virtual
async def test_what_is_spent_never_passes_a_limit(steps: list[Step], most: int, micros: int) -> None:
    notes = Notes()
    limited = budgets(notes, per_tenant=most, usd_per_tenant=micros / 1e6)
    retriever = BudgetedRetriever(Script(steps), limited, Account())
    await asyncio.gather(*(retriever.search("q", 3, 10) for _ in range(25)))
    assert len(notes.costs) <= most
    assert sum(usd for _, usd in notes.costs) <= micros / 1e6 + 1e-9
