from dataclasses import replace

import numpy as np
import pytest

from searchr1.atlas.habits import Habits, with_habits
from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.loop.types import Passage

TWO_HOPS = Demonstration(
    "gao",
    "Which currency is used in the country of Gao",
    ("CFA franc",),
    2,
    "city-country-currency",
    (
        DemonstratedTurn(
            "<think> I need the currency of the country of Gao. First: the country of Gao. </think>\n"
            "<search> country of Gao </search>",
            "country of Gao",
            (Passage("1", '"Gao"', "Gao is a city in Mali."),),
        ),
        DemonstratedTurn(
            '<think> Doc 1(Title: "Gao") Gao is a city in Mali. So Gao is in Mali. '
            "Now I need the currency of Mali. </think>\n"
            "<search> currency of Mali </search>",
            "currency of Mali",
            (Passage("2", '"Mali"', "Mali uses the CFA franc."),),
        ),
        DemonstratedTurn(
            '<think> Doc 1(Title: "Mali") Mali uses the CFA franc. So the currency of Mali is CFA franc. '
            "This is the answer. </think>\n"
            "<answer> CFA franc </answer>",
        ),
    ),
    {"Gao": "city", "Mali": "country", "CFA franc": "currency"},
)


def with_all(**chances: float) -> Demonstration:
    return with_habits(TWO_HOPS, Habits(**chances), np.random.default_rng(0))


def test_without_habits_a_demonstration_stays_as_it_is() -> None:
    assert not Habits()
    assert with_all() is TWO_HOPS


def test_a_guess_answers_with_the_entity_and_does_not_search() -> None:
    (turn,) = with_all(guess=1.0).turns
    assert turn.text == (
        "<think> I need the currency of the country of Gao. This is the answer. </think>\n<answer> Gao </answer>"
    )


def test_stopping_early_answers_with_the_first_hop() -> None:
    changed = with_all(stop_early=1.0)
    assert changed.turns[0] == TWO_HOPS.turns[0]
    (last,) = changed.turns[1:]
    assert last.text == (
        '<think> Doc 1(Title: "Gao") Gao is a city in Mali. So Gao is in Mali. This is the answer. </think>\n'
        "<answer> Mali </answer>"
    )


def test_one_hop_has_nowhere_to_stop_early() -> None:
    one_hop = replace(TWO_HOPS, turns=TWO_HOPS.turns[1:])
    one_hop = replace(
        one_hop,
        turns=(
            replace(
                one_hop.turns[0],
                text="<think> I need the currency of Mali. </think>\n<search> currency of Mali </search>",
            ),
            one_hop.turns[1],
        ),
    )
    assert with_habits(one_hop, Habits(stop_early=1.0), np.random.default_rng(0)) is one_hop


@pytest.mark.parametrize(("field", "chance"), [("guess", 0.25), ("stop_early", 0.65)])
def test_a_habit_comes_as_often_as_asked(field: str, chance: float) -> None:
    random = np.random.default_rng(0)
    changed = sum(with_habits(TWO_HOPS, Habits(**{field: chance}), random) is not TWO_HOPS for _ in range(2000))
    assert abs(changed / 2000 - chance) < 0.04
