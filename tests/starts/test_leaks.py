"""Leaks: each kind is found in what was written, and what only resembles one is not."""

import dataclasses
from typing import Any

import pytest

from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.data.evidence import GoldQuestion
from searchr1.data.questions import Question
from searchr1.errors import DatasetError
from searchr1.loop.types import Passage
from searchr1.starts.leaks import HeldOut

PASSAGES = [
    Passage("1", '"Velmora"', "Velmora was founded in 1801."),
    Passage("2", '"The Quistan Fair"', "A fair of 1802, in a land by the sea."),
    Passage("3", '"Green"', "Green is a village."),
    Passage("4", '"Marrowby"', "Marrowby has a mill."),
]


def held(question: str, *answers: str, ids: tuple[str, ...] = (), titles: tuple[str, ...] = ()) -> GoldQuestion:
    return GoldQuestion(Question(question, question, answers), ids, titles)


@pytest.fixture
def held_out() -> HeldOut:
    questions = [
        held("When was the old town of Velmora founded?", "1801", ids=("1",), titles=("Velmora",)),
        held("In which year was the fair held?", "1802", titles=("The Quistan Fair", "Marrowby")),
        held("Who founded the village?", "Holm", ids=("3",), titles=("Green",)),
    ]
    return HeldOut(questions, [held("What does Marrowby have?", "a mill", titles=("Marrowby",))], PASSAGES)


def demonstration(question: str = "What does the town have?", **changes: Any) -> Demonstration:
    shown = (Passage("", '"Marrowby"', "Marrowby has a mill."),)
    turns = (DemonstratedTurn("<search> town </search>", "town", shown), DemonstratedTurn("<answer> a mill </answer>"))
    return dataclasses.replace(Demonstration("d", question, ("a mill",), 1, "form", turns, {}), **changes)


def test_what_is_held_out_is_counted(held_out: HeldOut) -> None:
    assert (held_out.num_questions, held_out.num_passages, held_out.num_titles) == (3, 3, 3)
    assert [held_out.is_passage(passage) for passage in PASSAGES] == [True, True, True, False]
    assert [held_out.is_entity(p.title) for p in PASSAGES] == [True, True, True, False], "Marrowby is trained on, too"


@pytest.mark.parametrize(
    ("question", "is_held_out"),
    [
        ("when was the old town of velmora founded", True),
        ("The old town of Velmora was founded when?", True),
        ("When was the very old town of Velmora founded?", True),
        ("When was the town of Marrowby founded?", False),
        ("???", False),
    ],
)
def test_a_question_and_its_near_copies_are_held_out(held_out: HeldOut, question: str, is_held_out: bool) -> None:
    assert held_out.is_question(question) == is_held_out


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("what is near velmora", None),
        ("What is near Velmora?", "Velmora"),
        ("the quistan fair of old", "The Quistan Fair"),
        ("A green field", None),
        ("Where is Green?", "Green"),
        ("What is in Marrowby?", None),
    ],
)
def test_an_entity_is_named_by_its_title(held_out: HeldOut, text: str, named: str | None) -> None:
    assert held_out.entity_in(text) == named


def with_passage(passage: Passage) -> tuple[DemonstratedTurn, ...]:
    return (DemonstratedTurn("<search> x </search>", "x", (passage,)), DemonstratedTurn("<answer> y </answer>"))


@pytest.mark.parametrize(
    ("leaking", "leak"),
    [
        ({"question": "when was the old town of velmora founded"}, "held-out question"),
        ({"turns": with_passage(Passage("", '"Other"', "Velmora  was founded in 1801"))}, "held-out passage"),
        ({"turns": with_passage(Passage("", '"Velmora"', "Another text."))}, "held-out entity"),
        ({"turns": (DemonstratedTurn("<think> Velmora </think><answer> y </answer>"),)}, "held-out entity"),
        ({"question": "What lies beside Velmora?"}, "held-out entity"),
    ],
)
def test_each_kind_of_leak_is_refused_and_counted(held_out: HeldOut, leaking: dict[str, Any], leak: str) -> None:
    says = rf"of 2 demonstrations .*: 1 {leak} found; the first: {leak} in d"
    with pytest.raises(DatasetError, match=says) as caught:
        held_out.check([demonstration(), demonstration(**leaking)])
    assert "3 held-out questions, 3 passages of theirs and 3 titles" in str(caught.value)


def test_what_is_free_of_leaks_is_told_as_such(held_out: HeldOut) -> None:
    report = held_out.check([demonstration()])
    assert report.found == {}
    assert str(report).endswith("nothing found")
