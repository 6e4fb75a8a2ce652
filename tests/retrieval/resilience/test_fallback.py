import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.retrieval.base import FailureKind, Found, SearchFailed
from searchr1.retrieval.resilience.fallback import FallbackRetriever
from tests.retrieval.resilience.fakes import TICK_S, Script, Step, found
from tests.support.virtual_time import now_s, virtual


def failed(kind: FailureKind, provider: str, retry_after_s: float | None = None) -> SearchFailed:
    return SearchFailed(kind, f"{provider} failed", retry_after_s, provider)


@virtual
async def test_the_first_that_answers_is_the_outcome() -> None:
    first, second = Script([found("a\n1", provider="one")]), Script([found("b\n2", provider="two")])
    assert await FallbackRetriever([first, second]).search("q", 3, 10) == found("a\n1", provider="one")
    assert second.calls == 0


@pytest.mark.parametrize("kind", ["timeout", "unavailable", "rate_limited", "bad_response", "rejected"])
@virtual
async def test_the_next_is_asked_after_any_failure(kind: FailureKind) -> None:
    chain = FallbackRetriever([Script([failed(kind, "one")]), Script([found(provider="two")])])
    assert (await chain.search("q", 3, 10)).provider == "two"


@virtual
async def test_no_passages_are_an_answer() -> None:
    retrievers = [Script([Found((), provider="one")]), Script([found(provider="two")])]
    assert (await FallbackRetriever(retrievers).search("q", 3, 10)).provider == "one"


@virtual
async def test_a_slow_first_one_leaves_time_for_the_others() -> None:
    scripts = [Script([Step(found(), 99)]), Script([Step(found(), 99)]), Script([Step(found(provider="three"), 1)])]
    assert (await FallbackRetriever(scripts).search("q", 3, 10)).provider == "three"
    assert [script.deadlines_s for script in scripts] == [[6.0], pytest.approx([2.4]), pytest.approx([1.6])]


@virtual
async def test_a_quick_failure_leaves_its_time_to_the_next() -> None:
    second = Script([found()])
    await FallbackRetriever([Script([Step(failed("unavailable", "one"), 0.5)]), second]).search("q", 3, 10)
    assert second.deadlines_s == pytest.approx([9.5])


@virtual
async def test_where_all_fail_the_outcome_tells_most() -> None:
    failures = [failed("rejected", "one"), failed("rate_limited", "two", 9.0), failed("unavailable", "three", 4.0)]
    outcome = await FallbackRetriever([Script([failure]) for failure in failures]).search("q", 3, 10)
    assert outcome == SearchFailed("rate_limited", "one failed; two failed; three failed", 4.0, "two")


@virtual
async def test_one_failure_stays_as_it_is() -> None:
    assert await FallbackRetriever([Script([failed("timeout", "one", 3.0)])]).search("q", 3, 10) == failed(
        "timeout", "one", 3.0
    )


@virtual
async def test_no_time_is_a_timeout() -> None:
    script = Script([found()])
    outcome = await FallbackRetriever([script]).search("q", 3, 0)
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, script.calls) == ("timeout", 0)


@virtual
async def test_cancellation_reaches_the_one_that_searches_and_nobody_else() -> None:
    first, second = Script([Step(found(), 5)]), Script([found()])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(FallbackRetriever([first, second]).search("q", 3, 10), 1)
    assert (first.cancelled, second.calls) == (1, 0)


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FallbackRetriever([])


STEPS = st.builds(
    Step, st.just(found()) | st.builds(failed, st.sampled_from(["timeout", "rejected"]), st.just("p")), st.floats(0, 9),
    st.booleans(),
)  # fmt: skip


@settings(max_examples=150)
@given(steps=st.lists(STEPS, min_size=1, max_size=5), deadline_s=st.floats(-1, 20))
@virtual
async def test_every_search_has_an_outcome_by_its_deadline(steps: list[Step], deadline_s: float) -> None:
    began_s = now_s()
    outcome = await FallbackRetriever([Script([step]) for step in steps]).search("q", 3, deadline_s)
    assert isinstance(outcome, Found | SearchFailed)
    assert now_s() - began_s <= max(deadline_s, 0) + TICK_S
