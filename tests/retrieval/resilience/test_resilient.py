import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.config import ResilienceConfig
from searchr1.retrieval.resilience.resilient import (
    MAX_COOLDOWN_S,
    MIN_ATTEMPT_S,
    ResilientRetriever,
    refuses_our_account,
)
from tests.retrieval.resilience.fakes import TICK_S, Notes, Script, Step, failed, found
from tests.support.virtual_time import now_s, virtual

RETRIED = ["timeout", "unavailable", "rate_limited", "bad_response"]
FINAL = ["rejected", "budget", "not_cached"]


def resilient(
    inner: Retriever, notes: Notes | None = None, *, attempt_timeout_s: float | None = None, **config: Any
) -> ResilientRetriever:
    return ResilientRetriever(
        inner,
        name="web",
        config=ResilienceConfig(**config),
        observer=notes or Notes(),
        attempt_timeout_s=attempt_timeout_s,
        jitter=lambda: 0.5,
    )


@virtual
async def test_an_answer_passes_through_with_the_provider_s_name() -> None:
    script, notes = Script([found("t\nx")]), Notes()
    outcome = await resilient(script, notes).search("q", 3, 10)
    assert outcome == replace(found("t\nx"), provider="web")
    assert (notes.attempts, notes.retries, notes.states) == (["found"], 0, [])


@virtual
async def test_a_name_that_the_provider_gave_itself_stays() -> None:
    assert (await resilient(Script([found(provider="own")])).search("q", 3, 10)).provider == "own"


@pytest.mark.parametrize("kind", RETRIED)
@virtual
async def test_what_may_pass_is_tried_again(kind: str) -> None:
    script, notes = Script([failed(kind), failed(kind), found()]), Notes()
    assert isinstance(await resilient(script, notes).search("q", 3, 10), Found)
    assert (notes.attempts, notes.retries) == ([kind, kind, "found"], 2)


@pytest.mark.parametrize("kind", FINAL)
@virtual
async def test_what_will_not_pass_is_not_tried_again(kind: str) -> None:
    script = Script([failed(kind), found()])
    outcome = await resilient(script).search("q", 3, 10)
    assert outcome == replace(failed(kind), provider="web")
    assert script.calls == 1


@virtual
async def test_attempts_are_bounded_and_the_last_failure_is_the_outcome() -> None:
    script = Script([failed("timeout"), failed("unavailable"), failed("bad_response", message="the last")])
    outcome = await resilient(script).search("q", 3, 10)
    assert outcome == SearchFailed("bad_response", "the last", provider="web")
    assert script.calls == 3


@virtual
async def test_waits_grow_with_jitter() -> None:
    script = Script([Step(failed("unavailable"), 0.0)])
    await resilient(script, attempts=4).search("q", 3, 10)
    waits_s = [later - earlier for earlier, later in zip(script.began_s, script.began_s[1:], strict=False)]
    assert waits_s == pytest.approx([0.075, 0.15, 0.3])


@virtual
async def test_every_attempt_gets_what_is_left() -> None:
    script = Script([Step(failed("unavailable"), 1.0)])
    await resilient(script).search("q", 3, 10)
    assert script.deadlines_s == pytest.approx([10, 10 - 1.075, 10 - 2.225])


@virtual
async def test_a_bounded_attempt_leaves_time_to_retry_a_timeout() -> None:
    script = Script([Step(found(), 99), found()])
    assert isinstance(await resilient(script, attempt_timeout_s=2.0).search("q", 3, 10), Found)
    assert script.deadlines_s == pytest.approx([2, 2])


@virtual
async def test_retry_after_is_kept_to_where_it_fits() -> None:
    script = Script([Step(failed("rate_limited", 3.0), 0.0), found()])
    assert isinstance(await resilient(script).search("q", 3, 10), Found)
    assert script.began_s[1] - script.began_s[0] == pytest.approx(3.075)


@virtual
async def test_retry_after_that_does_not_fit_ends_the_search_at_once() -> None:
    script, began_s = Script([failed("rate_limited", 30.0), found()]), now_s()
    outcome = await resilient(script).search("q", 3, 10)
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, outcome.retry_after_s, script.calls) == ("rate_limited", 30.0, 1)
    assert now_s() - began_s < 0.1


@virtual
async def test_retry_after_keeps_other_searches_away_too() -> None:
    script, notes = Script([Step(failed("rate_limited", 30.0), 0.0), found()]), Notes()
    retriever = resilient(script, notes)
    await retriever.search("q", 3, 10)
    outcome = await retriever.search("another", 3, 10)
    assert outcome.provider == "web"
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "rate_limited"
    assert outcome.retry_after_s == pytest.approx(30.0)
    assert isinstance(await retriever.search("patient", 3, 40), Found)
    assert script.began_s[1] - script.began_s[0] >= 30
    assert (notes.attempts, notes.retries) == (["rate_limited", "found"], 0)


@virtual
async def test_an_absurd_retry_after_does_not_silence_a_provider() -> None:
    script = Script([failed("rate_limited", 1e9), found()])
    retriever = resilient(script)
    await retriever.search("q", 3, 10)
    await asyncio.sleep(MAX_COOLDOWN_S)
    assert isinstance(await retriever.search("q", 3, 10), Found)


@virtual
async def test_nothing_is_sent_without_time_for_it() -> None:
    script, notes = Script([found()]), Notes()
    for deadline_s in (0.04, 0, -1):
        outcome = await resilient(script, notes).search("q", 3, deadline_s)
        assert isinstance(outcome, SearchFailed)
        assert outcome.kind == "timeout"
    assert (script.calls, notes.attempts) == (0, [])


@virtual
async def test_a_provider_that_ignores_its_deadline_is_cut_off() -> None:
    script, began_s = Script([Step(found(), 99, stubborn=True)]), now_s()
    outcome = await resilient(script).search("q", 3, 2)
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, script.cancelled) == ("timeout", 1)
    assert now_s() - began_s == pytest.approx(2)


@virtual
async def test_failures_in_a_row_open_the_circuit_and_a_probe_closes_it() -> None:
    script, notes = Script([*[failed("unavailable")] * 5, found()]), Notes()
    retriever = resilient(script, notes, attempts=1)
    for _ in range(5):
        await retriever.search("q", 3, 10)
    outcome = await retriever.search("q", 3, 10)
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, script.calls, notes.states) == ("unavailable", 5, ["open"])
    assert "circuit is open" in outcome.message
    assert outcome.retry_after_s == pytest.approx(30, abs=0.1)
    await asyncio.sleep(30.1)
    assert isinstance(await retriever.search("q", 3, 10), Found)
    assert notes.states == ["open", "half_open", "closed"]


@virtual
async def test_the_circuit_opens_within_a_search_and_ends_its_retries() -> None:
    script = Script([failed("unavailable", message="down")])
    outcome = await resilient(script, breaker_failures=2).search("q", 3, 10)
    assert (script.calls, outcome) == (2, SearchFailed("unavailable", "down", provider="web"))


@virtual
async def test_a_success_between_failures_keeps_the_circuit_closed() -> None:
    script, notes = Script([failed("unavailable"), failed("timeout"), found()] * 4), Notes()
    retriever = resilient(script, notes, breaker_failures=3)
    for _ in range(4):
        assert isinstance(await retriever.search("q", 3, 10), Found)
    assert notes.states == []


@pytest.mark.parametrize("status", [401, 402, 403, 432, 433])
@virtual
async def test_a_refused_key_or_plan_opens_the_circuit_at_once_and_for_longer(status: int) -> None:
    script, notes = Script([failed("rejected", status=status), found()]), Notes()
    retriever = resilient(script, notes)
    await retriever.search("q", 3, 10)
    await asyncio.sleep(60)
    assert isinstance(await retriever.search("q", 3, 10), SearchFailed)
    assert (script.calls, notes.states) == (1, ["open"])
    await asyncio.sleep(241)
    assert isinstance(await retriever.search("q", 3, 10), Found)


@virtual
async def test_refused_requests_do_not_open_the_circuit() -> None:
    script, notes = Script([failed("rejected", status=400)]), Notes()
    retriever = resilient(script, notes)
    for _ in range(20):
        await retriever.search("q", 3, 10)
    assert (script.calls, notes.states) == (20, [])


def test_only_a_rejection_can_refuse_the_account() -> None:
    assert refuses_our_account(SearchFailed("rejected", "no", status=401))
    assert not refuses_our_account(SearchFailed("unavailable", "no", status=401))
    assert not refuses_our_account(SearchFailed("rejected", "no", status=400))
    assert not refuses_our_account(SearchFailed("rejected", "web answered HTTP 401"))


@virtual
async def test_searches_with_little_time_do_not_open_the_circuit() -> None:
    script, notes = Script([Step(found(), 0.5)]), Notes()
    retriever = resilient(script, notes, attempts=1)
    for _ in range(20):
        assert isinstance(await retriever.search("q", 3, 0.1), SearchFailed)
    assert notes.states == []
    assert isinstance(await retriever.search("q", 3, 1), Found)


@virtual
async def test_cancelled_searches_count_as_nothing_and_free_their_slots() -> None:
    script, notes = Script([Step(found(), 5)]), Notes()
    retriever = resilient(script, notes, max_concurrent=2)
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(retriever.search("q", 3, 10), 0.5)
    assert (notes.attempts, notes.states, script.running) == (["cancelled"] * 10, [], 0)
    assert isinstance(await retriever.search("q", 3, 10), Found)


@virtual
async def test_a_cancelled_probe_leaves_room_for_the_next() -> None:
    script = Script([failed("unavailable"), Step(found(), 5), found()])
    retriever = resilient(script, attempts=1, breaker_failures=1)
    await retriever.search("q", 3, 10)
    await asyncio.sleep(31)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(retriever.search("q", 3, 10), 0.5)
    assert isinstance(await retriever.search("q", 3, 10), Found)


@virtual
async def test_one_probe_at_a_time() -> None:
    script = Script([failed("unavailable"), Step(found(), 1)])
    retriever = resilient(script, attempts=1, breaker_failures=1)
    await retriever.search("q", 3, 10)
    await asyncio.sleep(31)
    outcomes = await asyncio.gather(*(retriever.search("q", 3, 10) for _ in range(5)))
    assert [type(outcome) for outcome in outcomes] == [Found, *[SearchFailed] * 4]
    assert script.calls == 2


@virtual
async def test_calls_at_once_are_bounded_and_the_others_wait() -> None:
    script = Script([Step(found(), 1)])
    retriever = resilient(script, max_concurrent=3)
    outcomes = await asyncio.gather(*(retriever.search("q", 3, 10) for _ in range(9)))
    assert all(isinstance(outcome, Found) for outcome in outcomes)
    assert script.most_running == 3


@virtual
async def test_waiting_for_a_slot_ends_with_the_deadline_and_blames_nobody() -> None:
    script, notes = Script([Step(found(), 8)]), Notes()
    retriever, began_s = resilient(script, notes, max_concurrent=1, breaker_failures=1), now_s()
    first = asyncio.create_task(retriever.search("q", 3, 10))
    await asyncio.sleep(0)
    second = await retriever.search("q", 3, 2)
    assert isinstance(second, SearchFailed)
    assert (second.kind, script.calls) == ("timeout", 1)
    assert now_s() - began_s <= 2
    assert isinstance(await first, Found)
    assert notes.states == []


@pytest.mark.parametrize("rate_per_s", [0.5, 1.0, 20.0])
@virtual
async def test_calls_are_spaced_by_the_rate(rate_per_s: float) -> None:
    script = Script([found()])
    retriever = resilient(script, rate_per_s=rate_per_s)
    await asyncio.gather(*(retriever.search("q", 3, 60) for _ in range(6)))
    spaces_s = [later - earlier for earlier, later in zip(script.began_s, script.began_s[1:], strict=False)]
    assert spaces_s == pytest.approx([1 / rate_per_s] * 5)


@virtual
async def test_a_place_in_the_rate_that_comes_too_late_is_not_waited_for() -> None:
    script, began_s = Script([found()]), now_s()
    retriever = resilient(script, rate_per_s=0.1, max_concurrent=4)
    outcomes = await asyncio.gather(*(retriever.search("q", 3, 2) for _ in range(3)))
    assert [type(outcome) for outcome in outcomes] == [Found, SearchFailed, SearchFailed]
    assert now_s() - began_s <= 2


@virtual
async def test_an_endless_deadline_is_fine() -> None:
    script = Script([failed("unavailable"), found()])
    assert isinstance(await resilient(script).search("q", 3, float("inf")), Found)


OUTCOMES: st.SearchStrategy[SearchOutcome] = st.one_of(
    st.just(found()),
    st.just(Found(())),
    st.builds(failed, st.sampled_from(RETRIED + FINAL), st.none() | st.floats(0, 20)),
    st.just(failed("rejected", status=401)),
)
STEPS = st.lists(st.builds(Step, OUTCOMES, st.floats(0, 20), st.booleans()), min_size=1, max_size=8)
CONFIGS = st.builds(
    ResilienceConfig,
    attempts=st.integers(1, 5),
    breaker_failures=st.integers(1, 4),
    max_concurrent=st.integers(1, 3),
    rate_per_s=st.none() | st.floats(0.5, 10),
)


@settings(max_examples=150)
@given(
    steps=STEPS,
    config=CONFIGS,
    attempt_timeout_s=st.none() | st.floats(0.1, 5),
    deadlines_s=st.lists(st.floats(-1, 15), min_size=1, max_size=6),
)
@virtual
async def test_every_search_has_an_outcome_by_its_deadline(
    steps: list[Step], config: ResilienceConfig, attempt_timeout_s: float | None, deadlines_s: list[float]
) -> None:
    script = Script(steps)
    retriever = ResilientRetriever(
        script, name="web", config=config, observer=Notes(), attempt_timeout_s=attempt_timeout_s
    )

    async def timed(deadline_s: float) -> tuple[SearchOutcome, float]:
        began_s = now_s()
        return await retriever.search("q", 3, deadline_s), now_s() - began_s

    for deadline_s, (outcome, took_s) in zip(
        deadlines_s, await asyncio.gather(*(timed(deadline_s) for deadline_s in deadlines_s)), strict=True
    ):
        assert isinstance(outcome, Found | SearchFailed)
        assert took_s <= max(deadline_s, 0) + TICK_S
    assert script.running == 0
    assert script.most_running <= config.max_concurrent
    assert all(given_s >= MIN_ATTEMPT_S - TICK_S for given_s in script.deadlines_s)


@settings(max_examples=100)
@given(before=st.lists(st.sampled_from(RETRIED), max_size=3), kind=st.sampled_from(FINAL))
@virtual
async def test_nothing_is_sent_after_a_final_failure(before: list[str], kind: str) -> None:
    script = Script([*[failed(earlier) for earlier in before], failed(kind), found()])
    outcome = await resilient(script, attempts=9).search("q", 3, 100)
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, script.calls) == (kind, len(before) + 1)
