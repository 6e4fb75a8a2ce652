"""What the comparison of two releases takes for a failure."""

from collections import Counter

from loadtests.faults.reading import Reading
from loadtests.releases.__main__ import num_wrong
from loadtests.releases.asking import is_whole


def test_ends_that_are_whole_or_told_are_no_failures() -> None:
    assert num_wrong(Counter({"whole": 5, "stopping": 2, "run_lost": 1})) == 0
    assert num_wrong(Counter({"whole": 5, "no end": 2, "internal_error": 1})) == 3


def test_a_run_with_a_gap_or_another_text_is_not_whole() -> None:
    assert is_whole(Reading(text=["a"], end="completed"), "a")
    assert not is_whole(Reading(text=["a"], end="completed", num_gaps=1), "a")
    assert not is_whole(Reading(text=["b"], end="completed"), "a")
    assert not is_whole(Reading(text=["a"]), "a")
