import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.config import ResilienceConfig
from searchr1.retrieval.resilience.hedged import HedgedRetriever
from searchr1.retrieval.resilience.resilient import ResilientRetriever
from tests.retrieval.resilience.fakes import TICK_S, Notes, Script, Step, failed, found
from tests.support.virtual_time import now_s, virtual

QUICK = Step(found("quick\nx"), 0.1)
SLOW = Step(found("slow\nx"), 5)


def hedged(script: Script, notes: Notes | None = None, *, max_share: float = 0.05) -> HedgedRetriever:
    return HedgedRetriever(script, name="web", observer=notes or Notes(), min_samples=20, max_share=max_share)


async def warm_up(retriever: HedgedRetriever, searches: int = 20) -> None:
    for _ in range(searches):
        await retriever.search("q", 3, 10)


@virtual
async def test_a_slow_search_is_overtaken_by_its_hedge_and_cancelled() -> None:
    script, notes = Script([*[QUICK] * 20, SLOW, QUICK]), Notes()
    retriever = hedged(script, notes)
    await warm_up(retriever)
    began_s = now_s()
    assert await retriever.search("q", 3, 10) == found("quick\nx")
    assert now_s() - began_s == pytest.approx(0.2)
    assert (script.calls, script.cancelled, script.running, notes.hedges) == (22, 1, 0, [True])
    assert script.deadlines_s[-2:] == pytest.approx([10, 9.9])


@virtual
async def test_a_hedge_that_loses_is_cancelled() -> None:
    script, notes = Script([*[QUICK] * 20, Step(found("first\nx"), 0.3), SLOW]), Notes()
    retriever = hedged(script, notes)
    await warm_up(retriever)
    assert await retriever.search("q", 3, 10) == found("first\nx")
    assert (script.calls, script.cancelled, script.running, notes.hedges) == (22, 1, 0, [False])


@virtual
async def test_quick_searches_and_the_first_ones_are_not_hedged() -> None:
    script = Script([SLOW])
    await warm_up(hedged(script), 10)
    assert script.calls == 10
    script = Script([QUICK])
    await warm_up(hedged(script), 60)
    assert script.calls == 60


@virtual
async def test_a_failure_waits_for_the_other_call() -> None:
    script, notes = Script([*[QUICK] * 20, SLOW, Step(failed("unavailable"), 0.1)]), Notes()
    retriever = hedged(script, notes)
    await warm_up(retriever)
    assert await retriever.search("q", 3, 10) == found("slow\nx")
    assert notes.hedges == [False]


@virtual
async def test_where_both_fail_the_first_call_s_failure_is_the_outcome() -> None:
    steps = [Step(failed("unavailable", message="first"), 1), Step(failed("timeout", message="second"), 0.1)]
    script, notes = Script([*[QUICK] * 20, *steps]), Notes()
    retriever = hedged(script, notes)
    await warm_up(retriever)
    assert await retriever.search("q", 3, 10) == failed("unavailable", message="first")
    assert notes.hedges == [False]


@virtual
async def test_failures_teach_nothing_about_latency() -> None:
    script = Script([failed("unavailable")])
    retriever = hedged(script)
    await warm_up(retriever, 40)
    assert retriever.hedge_after_s() is None


@virtual
async def test_a_slow_first_call_that_lost_is_remembered_as_slow() -> None:
    script = Script([*[QUICK] * 20, SLOW, QUICK])
    retriever = HedgedRetriever(script, name="web", observer=Notes(), min_samples=20, window=20)
    await warm_up(retriever)
    await retriever.search("q", 3, 10)
    assert retriever.hedge_after_s() == pytest.approx(0.2)


@virtual
async def test_hedges_are_a_bounded_share() -> None:
    script, notes = Script([*[QUICK] * 20, Step(found(), 0.2)]), Notes()
    retriever = HedgedRetriever(script, name="web", observer=notes, min_samples=1, window=1, max_share=0.05)
    for step in range(400):
        script.steps = [Step(found(), 0.1 if step % 2 == 0 else 0.2)]
        await retriever.search("q", 3, 10)
    assert 0 < len(notes.hedges) <= 20


@virtual
async def test_cancellation_ends_both_calls() -> None:
    script = Script([*[QUICK] * 20, SLOW])
    retriever = hedged(script)
    await warm_up(retriever)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(retriever.search("q", 3, 10), 1)
    assert (script.calls, script.cancelled, script.running) == (22, 2, 0)


@pytest.mark.parametrize("wrong", [{"after_quantile": 1.0}, {"max_share": 0.0}, {"min_samples": 501}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a hedge needs"):
        HedgedRetriever(Script([QUICK]), name="web", observer=Notes(), **wrong)  # type: ignore[arg-type]


STEPS = st.builds(Step, st.sampled_from([found(), failed("unavailable"), failed("timeout")]), st.floats(0, 9))


@settings(max_examples=100)
@given(
    steps=st.lists(STEPS, min_size=1, max_size=30),
    deadlines_s=st.lists(st.floats(0.01, 10), min_size=1, max_size=30),
    stubborn=st.booleans(),
)
@virtual
async def test_every_loser_is_over_and_every_search_ends_in_time(
    steps: list[Step], deadlines_s: list[float], stubborn: bool
) -> None:
    script, notes = Script([Step(step.outcome, step.takes_s, stubborn) for step in steps]), Notes()
    once = ResilienceConfig(attempts=1, breaker_failures=1000)
    retriever = HedgedRetriever(
        ResilientRetriever(script, name="web", config=once, observer=notes),
        name="web",
        observer=notes,
        min_samples=1,
        window=3,
        max_share=1.0,
        after_quantile=0.5,
    )
    for deadline_s in deadlines_s:
        began_s = now_s()
        assert isinstance(await retriever.search("q", 3, deadline_s), Found | SearchFailed)
        assert now_s() - began_s <= deadline_s + TICK_S
        assert script.running == 0
