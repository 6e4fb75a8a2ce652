"""Exact match against cases worked out by hand from the reference's rules."""

import pytest

from searchr1.evaluation.metrics import (
    exact_match,
    extract_reference,
    normalize,
    reference_answer,
    sub_exact_match,
)
from searchr1.loop.profiles.search_r1 import SEARCH_R1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  U.S. Dollar!", "us dollar"),
        ("A an the", ""),
        ("theatre of another Athens", "theatre of another athens"),
        ("the-end", "theend"),
        ("rock 'n' roll", "rock n roll"),
        ("a\tb\nc", "b c"),
        ("O’Hara – x", "o’hara – x"),
        ("ÉCOLE", "école"),
        ("", ""),
    ],
)
def test_normalize(text: str, expected: str) -> None:
    assert normalize(text) == expected


@pytest.mark.parametrize(
    ("prediction", "golden", "exact", "sub"),
    [
        ("West African CFA franc", ["CFA franc", "west african cfa franc."], True, True),
        ("the West African CFA franc", ["CFA franc"], False, True),
        ("Paris", ["London"], False, False),
        ("CFA", ["CFA franc"], False, False),
        ("Romania", ["Oman"], False, True),
        ("The", [""], True, True),
        ("Paris", ["The"], False, True),
        ("Paris", [], False, False),
        (None, ["", "Paris"], False, False),
    ],
)
def test_matches(prediction: str | None, golden: list[str], exact: bool, sub: bool) -> None:
    assert exact_match(prediction, golden) is exact
    assert sub_exact_match(prediction, golden) is sub


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no tags", None),
        ("<answer> one </answer>", None),
        ("<answer> one </answer> <answer>\ntwo\n</answer>", "two"),
        ("<answer> one </answer> <answer> open", None),
        ("<answer>1</answer><answer>2</answer><answer> 3 </answer>", "3"),
    ],
)
def test_the_reference_extractor_needs_two_matches(text: str, expected: str | None) -> None:
    assert extract_reference(text) == expected


def test_the_reference_reads_the_prompts_example_where_no_answer_was_given() -> None:
    assert extract_reference(SEARCH_R1.prompt("Where?")) == "Beijing"
    assert reference_answer("Capital of China", None) == "Beijing"
    assert reference_answer("Capital of China", None, retried=True) == "and"


@pytest.mark.parametrize("retried", [False, True])
def test_the_reference_reads_the_runs_own_answer_where_there_is_one(retried: bool) -> None:
    assert reference_answer("Capital of Mali?", "Bamako", retried=retried) == "Bamako"
    assert reference_answer("Is <answer> x </answer> a tag?", " no ", retried=retried) == "no"
