"""The fifty questions of the Wikipedia demo, and the page that tells what it said."""

from typing import Any

import pytest

from loadtests.demo_wiki.asking import Said, said
from loadtests.demo_wiki.questions import Question, read_questions, unanswerable
from loadtests.demo_wiki.report import report
from searchr1.evaluation.metrics import normalize
from searchr1_client import Run

LIGHTHOUSE = Question("places-1", "places", "Where is the lighthouse?", ("Quillon", "the town of Quillon"), ("Marn",))
CAPITAL = Question("places-2", "places", "What is the capital?", ("W",), ("Verr", "Ostland"))
LEADS = {"Marn": "The Marn flows by Quillon.", "Verr": "Verr is in Ostland.", "Ostland": "Its capital is Willow."}


def run(answer: str | None, *searches: tuple[str, str]) -> Run:
    """A finished run with a passage, "Marn" and the text, for each query."""
    body: dict[str, Any] = {
        "id": "run_1",
        "created": 0,
        "model": "m",
        "question": "q",
        "status": "completed" if answer is not None else "exhausted",
        "answer": answer,
        "steps": [
            {"turn": turn, "query": query, "passages": [{"index": 1, "title": "Marn", "snippet": text}]}
            for turn, (query, text) in enumerate(searches)
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return Run.model_validate(body)


def test_there_are_fifty_different_ones_of_each_kind() -> None:
    questions = read_questions()
    assert len(questions) == len({normalize(question.question) for question in questions}) == 50
    assert len({question.id for question in questions}) == 50
    kinds = [question.kind for question in questions]
    assert {kind: kinds.count(kind) >= 10 for kind in kinds} == dict.fromkeys(
        ["people", "places", "works", "science"], True
    )
    assert all(question.golden_answers and question.titles for question in questions)
    # An answer that stands in its question would be no test of reading.
    assert [
        q.id for q in questions for answer in q.golden_answers if normalize(answer) in normalize(q.question).split()
    ] == []


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (LIGHTHOUSE, None),
        (CAPITAL, "none of W stands in Verr, Ostland"),
        (Question("x", "works", "?", ("Quillon",), ("Gone",)), "no article Gone"),
    ],
)
def test_what_the_leads_do_not_answer_is_told(question: Question, reason: str | None) -> None:
    assert unanswerable(question, LEADS) == reason


@pytest.mark.parametrize(
    ("answered", "right", "contains", "found"),
    [
        (run("quillon.", ("lighthouse", "It is in Quillon.")), True, True, True),
        (run("It is in Quillon", ("lighthouse", "Something else.")), False, True, False),
        (run("Marn"), False, False, False),
        (run(None, ("lighthouse", "Quillon")), False, False, True),
    ],
)
def test_an_answer_is_scored(answered: Run, right: bool, contains: bool, found: bool) -> None:
    result = said(LIGHTHOUSE, answered, 1.234)
    assert (result.right, result.contains, result.found) == (right, contains, found)
    assert (result.queries, result.seconds) == (tuple(step.query or "" for step in answered.steps), 1.2)


def test_the_page_shows_right_and_wrong_answers_as_they_were_given() -> None:
    answers = [
        Said("places-1", "Quillon", "completed", ("lighthouse",), True, True, True, 2.0),
        Said("places-2", "a|b <b>\n*c*", "completed", ("one", "two"), False, False, False, 4.0),
    ]
    page = report("It errs.", [LIGHTHOUSE, CAPITAL], answers, "Asked today.")
    right, wrong = page.split("## Right")[1].split("## Wrong")
    assert "| Where is the lighthouse? | Quillon | Quillon | lighthouse | yes |" in right
    assert r"| What is the capital? | a\|b \<b> \*c\* | W | one; two | no |" in wrong
    assert "| places | 2 | 1 | 1 | 1 | 1.50 | 0 |" in page
    assert "Right: 1 of 2" in page
    assert "“It errs.”" in page


def test_a_run_without_an_answer_is_shown_by_its_status() -> None:
    answers = [said(LIGHTHOUSE, run(None), 1.0)]
    page = report("x", [LIGHTHOUSE], answers, "Asked today.")
    assert "| Where is the lighthouse? | (exhausted) | Quillon | (none) | no |" in page
    assert "None." in page.split("## Right")[1].split("## Wrong")[0]
