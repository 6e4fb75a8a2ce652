"""What is expected of runs: a quantile by turn, the first guess, and forgetting."""

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.scheduling import growth
from searchr1.scheduling.endings import Endings
from searchr1.scheduling.growth import LearnedGrowth


def test_the_example_holds() -> None:
    assert doctest.testmod(growth).failed == 0


@pytest.mark.parametrize(("quantile", "expected"), [(0.0, 0), (0.5, 50), (0.9, 90), (1.0, 99)])
def test_the_quantile_of_what_ended_runs_had_left(quantile: float, expected: int) -> None:
    learned = LearnedGrowth(quantile=quantile, first_tokens=7)
    for grown in range(100):
        learned.learn([100], 100 + grown)
    assert learned.remaining_tokens("new", 1) == expected


def test_a_turn_that_few_reached_is_taken_for_the_last_known_one() -> None:
    learned = LearnedGrowth(quantile=0.5, first_tokens=7)
    for _ in range(20):
        learned.learn([100, 400], 500)
    learned.learn([100, 400, 900], 1000)
    assert [learned.remaining_tokens("new", turn) for turn in (1, 2, 3, 50)] == [400, 100, 100, 100]


def test_old_runs_are_forgotten() -> None:
    learned = LearnedGrowth(quantile=0.5, first_tokens=7)
    for last_footprint in (*[1000] * 600, *[200] * 600):
        learned.learn([100], last_footprint)
    assert learned.remaining_tokens("new", 1) == 100


def test_a_context_that_was_cut_is_no_negative_growth() -> None:
    learned = LearnedGrowth(quantile=0.5, first_tokens=7)
    for _ in range(10):
        learned.learn([100, 900], 600)
    assert learned.remaining_tokens("new", 2) == 0


@given(rate=st.floats(0.2, 50), num_before=st.integers(0, 500))
def test_retry_after_is_what_the_rate_of_endings_needs(rate: float, num_before: int) -> None:
    endings = Endings()
    for count in range(1 + int(rate * 200)):
        endings.count(count / rate)
    expected = (num_before + 1) / rate
    told = endings.retry_after_s(num_before, 200.0, num_admitted=1)
    assert min(max(expected * 0.7, 1), 60) <= told <= min(max(expected * 1.5, 1), 60)


def test_where_nothing_ends_the_wait_grows() -> None:
    endings = Endings()
    assert endings.retry_after_s(0, 0.0, num_admitted=8) == 1.0
    assert endings.retry_after_s(15, 0.0, num_admitted=8) == 8.0
    for now in range(100):
        endings.count(float(now))
    waits = [endings.retry_after_s(2, 100.0 + later, num_admitted=8) for later in (0, 20, 60, 600)]
    assert waits == sorted(waits)
    assert waits[-1] == 60.0
