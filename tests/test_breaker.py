import gc

import pytest

from searchr1.breaker import Breaker, BreakerState, CallResult


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(clock: Clock, states: list[BreakerState], failures: int = 2) -> Breaker:
    return Breaker(failures=failures, reset_s=30, unauthorized_reset_s=300, on_change=states.append, clock=clock)


def call(breaker: Breaker, result: CallResult) -> None:
    period = breaker.allow()
    assert period is not None
    breaker.record(period, result)


def test_it_opens_waits_probes_and_closes(clock: Clock) -> None:
    states: list[BreakerState] = []
    subject = breaker(clock, states)
    call(subject, "failure")
    call(subject, "failure")
    assert (subject.state, subject.allow()) == ("open", None)
    clock.now_s += 29.9
    assert subject.allow() is None
    assert subject.open_for_s() == pytest.approx(0.1)
    clock.now_s += 0.2
    assert (subject.state, subject.open_for_s()) == ("open", 0)
    call(subject, "success")
    assert states == ["open", "half_open", "closed"]


def test_a_failed_probe_opens_it_again(clock: Clock) -> None:
    states: list[BreakerState] = []
    subject = breaker(clock, states)
    call(subject, "failure")
    call(subject, "failure")
    clock.now_s += 31
    call(subject, "failure")
    assert subject.open_for_s() == 30
    assert states == ["open", "half_open", "open"]


def test_a_success_starts_the_count_of_failures_anew(clock: Clock) -> None:
    states: list[BreakerState] = []
    subject = breaker(clock, states)
    for result in ("failure", "success", "failure", "cancelled"):
        call(subject, result)
    assert states == []
    call(subject, "failure")
    assert states == ["open"]


def test_failures_before_it_opened_do_not_count_after_it_closed(clock: Clock) -> None:
    states: list[BreakerState] = []
    subject = breaker(clock, states)
    call(subject, "failure")
    call(subject, "failure")
    clock.now_s += 31
    call(subject, "success")
    call(subject, "failure")
    assert states == ["open", "half_open", "closed"]


def test_the_longer_time_after_a_refused_key_is_not_kept_for_later_failures(clock: Clock) -> None:
    subject = breaker(clock, [], failures=1)
    call(subject, "unauthorized")
    assert subject.open_for_s() == 300
    clock.now_s += 301
    call(subject, "failure")
    assert subject.open_for_s() == 30


def test_calls_from_before_it_opened_do_not_speak_for_the_probe(clock: Clock) -> None:
    states: list[BreakerState] = []
    subject = breaker(clock, states, failures=1)
    early = [subject.allow() for _ in range(4)]
    call(subject, "failure")
    assert early[0] is not None
    subject.record(early[0], "success")
    assert states == ["open"]
    clock.now_s += 31
    probe = subject.allow()
    assert probe is not None
    for result in ("failure", "success"):
        subject.record(early[0], result)
    assert subject.allow() is None
    subject.record(probe, "cancelled")
    assert states == ["open", "half_open"]
    again = subject.allow()
    assert again is not None
    subject.record(again, "success")
    subject.record(early[0], "failure")
    assert states == ["open", "half_open", "closed"]


def test_one_probe_at_a_time(clock: Clock) -> None:
    subject = breaker(clock, [], failures=1)
    call(subject, "failure")
    clock.now_s += 30
    assert [subject.allow() is not None for _ in range(3)] == [True, False, False]


def test_refusing_many_calls_keeps_nothing(clock: Clock) -> None:
    subject = breaker(clock, [], failures=1)
    call(subject, "failure")
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(1000):
        assert subject.allow() is None
    gc.collect()
    assert len(gc.get_objects()) - before < 100
