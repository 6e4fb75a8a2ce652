import asyncio
import gc

from searchr1.retrieval.base import BreakerState
from searchr1.retrieval.resilience.breaker import Breaker, Call, Verdict
from tests.retrieval.resilience.fakes import virtual


def breaker(states: list[BreakerState], failures: int = 2) -> Breaker:
    return Breaker("web", failures=failures, reset_s=30, refused_reset_s=300, on_change=states.append)


def settle(breaker: Breaker, verdict: Verdict) -> None:
    call = breaker.admit()
    assert call is not None
    breaker.settle(call, verdict)


@virtual
async def test_it_opens_rests_probes_and_closes() -> None:
    states: list[BreakerState] = []
    subject = breaker(states)
    settle(subject, "failed")
    settle(subject, "failed")
    assert (subject.state, subject.admit()) == ("open", None)
    await asyncio.sleep(29.9)
    assert subject.admit() is None
    await asyncio.sleep(0.2)
    settle(subject, "passed")
    assert states == ["open", "half_open", "closed"]


@virtual
async def test_a_failed_probe_opens_it_again() -> None:
    states: list[BreakerState] = []
    subject = breaker(states, failures=1)
    settle(subject, "failed")
    await asyncio.sleep(31)
    settle(subject, "failed")
    assert subject.open_for_s() > 29
    assert states == ["open", "half_open", "open"]


@virtual
async def test_a_rest_after_a_refusal_is_not_kept_for_later_failures() -> None:
    subject = breaker([], failures=1)
    settle(subject, "refused")
    assert 299 < subject.open_for_s() <= 300
    await asyncio.sleep(301)
    settle(subject, "failed")
    assert 29 < subject.open_for_s() <= 30


@virtual
async def test_calls_from_before_it_opened_do_not_speak_for_the_probe() -> None:
    subject = breaker([], failures=1)
    early = [subject.admit() for _ in range(3)]
    settle(subject, "failed")
    assert early[0] is not None
    subject.settle(early[0], "passed")
    assert subject.state == "open"
    await asyncio.sleep(31)
    probe = subject.admit()
    assert isinstance(probe, Call)
    for call, verdict in ((early[1], "failed"), (early[2], "passed")):
        assert call is not None
        subject.settle(call, verdict)  # type: ignore[arg-type]
    assert subject.admit() is None
    subject.settle(probe, "unknown")
    assert subject.admit() is not None


@virtual
async def test_refusing_many_calls_keeps_nothing() -> None:
    subject = breaker([], failures=1)
    settle(subject, "failed")
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        assert subject.admit() is None
    gc.collect()
    assert len(gc.get_objects()) - before < 100
