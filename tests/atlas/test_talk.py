"""Conversations about the world: their form, what their last question asks, and who ``it`` is."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from searchr1.atlas.questions import KINDS, AtlasQuestion, generate
from searchr1.atlas.records import DemonstratedTurn, Demonstration
from searchr1.atlas.talk.conversations import MORE_KINDS, Style, Talk, asked
from searchr1.atlas.talk.exam import EXAM_FORMS, SYSTEM, exam
from searchr1.atlas.talk.lower_case import in_lower_case
from searchr1.atlas.talk.off_topic import KIND, off_topic
from searchr1.atlas.talk.wordings import it, phrasings
from searchr1.atlas.teacher import Teacher
from searchr1.atlas.world import World
from searchr1.loop.conversation import fold_conversation
from tests.atlas.conftest import Oracle, demonstrate

PLAIN = Style(loose=0, wrapped=0, unmarked=0, careless=0, answers=("{answer}",))


@pytest.fixture(scope="module")
def questions(world: World) -> Sequence[AtlasQuestion]:
    return generate(world, "train", 300, 3)


@pytest.fixture(scope="module")
def talk(world: World) -> Talk:
    return Talk(world, "train")


@pytest.mark.parametrize("kind", [*KINDS, *MORE_KINDS])
def test_whatever_can_be_asked_can_be_asked_loosely_and_of_it(kind: str) -> None:
    for tables in (phrasings.ASK_MORE, it.IT, it.UNSEEN_IT):
        assert tables[asked(kind)]
    assert all("{topic}" in wording for wording in phrasings.ASK_MORE[asked(kind)])


def test_every_form_has_its_shape(talk: Talk, questions: Sequence[AtlasQuestion]) -> None:
    rng = random.Random(0)
    for question in questions:
        assert [turn.role for turn in talk.turns(question, "alone", rng)] == ["user"]
        assert [turn.role for turn in talk.turns(question, "system", rng)] == ["system", "user"]
        for form in ("history", "follow-up"):
            roles = [turn.role for turn in talk.turns(question, form, rng)]
            spoken = roles[1:] if roles[0] == "system" else roles
            assert spoken == ["user", "assistant"] * (len(spoken) // 2) + ["user"]
            assert len(spoken) >= 3


def test_the_last_question_names_the_topic_or_the_talk_before_it_does(world: World) -> None:
    talk = Talk(world, "train", PLAIN)
    rng = random.Random(1)
    ellipses = 0
    for question in generate(world, "train", 400, 5):
        topic = question.entities[0]
        assert topic.removeprefix("the ") in talk.standalone(question, rng)
        *earlier, last = talk.turns(question, "follow-up", rng)
        if topic not in last.text:
            assert last.text in it.IT[asked(question.kind)]
            assert any(topic in turn.text for turn in earlier if turn.role != "system")
            ellipses += 1
    assert 100 < ellipses < 300


def test_it_is_the_last_answer_where_that_is_a_place_that_can_be_asked_about(world: World) -> None:
    """The reader's rule, written anew: of the last two messages, and where they name no such place, those before."""
    talk = Talk(world, "train", PLAIN)
    rng = random.Random(2)
    countries = {country.phrase for country in world.countries.values()}
    capitals = {country.capital for country in world.countries.values()}
    seen = set()
    for question in [*generate(world, "train", 300, 7), *talk.more_questions(300, rng)]:
        topic, fact = question.entities[0], asked(question.kind)
        turns = [turn for turn in talk.turns(question, "follow-up", rng) if turn.role != "system"]
        if topic in turns[-1].text:
            continue
        answer = turns[-2].text
        if fact in ("population", "timezone") and answer in capitals:
            assert answer == topic
            seen.add("capital")
        elif answer in countries and fact != "country":
            assert answer == topic
            seen.add("country")
        else:
            seen.add("question")
    assert seen == {"capital", "country", "question"}


def test_earlier_answers_are_right(world: World) -> None:
    talk = Talk(world, "train", PLAIN)
    rng = random.Random(3)
    capital_of = {country.phrase: country.capital for country in world.countries.values()}
    checked = 0
    for _ in range(600):
        exchange = talk.exchange(rng)
        if exchange.question.startswith("What is the capital of ") and exchange.question[23:-1] in capital_of:
            assert exchange.answer == capital_of[exchange.question[23:-1]]
            checked += 1
    assert checked


def test_a_conversation_demonstrates_what_its_last_question_asks(world: World, oracle: Oracle) -> None:
    """Whatever stands before it, the first thought states the need, as if the question stood alone."""
    talk, teacher, rng = Talk(world, "train"), Teacher(world), random.Random(4)
    shown = 0
    for question in [*generate(world, "train", 60, 9), *talk.more_questions(60, rng)]:
        alone = demonstrate(teacher, question, oracle)
        text = fold_conversation(talk.turns(question, "follow-up", rng))
        told = demonstrate(teacher, replace(question, question=text), oracle)
        assert (alone is None) == (told is None)
        if alone is not None and told is not None:
            assert told.turns == alone.turns
            assert told.question == text
            shown += 1
    assert shown > 90


@pytest.mark.parametrize("form", EXAM_FORMS)
def test_an_exam_asks_the_same_of_the_same(world: World, form: str) -> None:
    asked_alone = generate(world, "test", 60, 0)
    papers = exam(world, asked_alone, form)  # type: ignore[arg-type]
    assert papers == exam(world, asked_alone, form)  # type: ignore[arg-type]
    assert [paper.asked for paper in papers] == list(asked_alone)
    trained = {text for texts in it.IT.values() for text in texts}
    unseen = {text for texts in it.UNSEEN_IT.values() for text in texts}
    assert not trained & unseen
    assert not set(phrasings.SAME_PLACE) & set(it.UNSEEN_SAME_PLACE)
    for paper in papers:
        row = paper.to_row()
        assert row["golden_answers"] == paper.asked.golden_answers
        assert row["question"] == fold_conversation(paper.turns)
        assert [message["content"] for message in row["messages"]] == [turn.text for turn in paper.turns]
        if form == "system":
            assert [turn.text for turn in paper.turns] == [SYSTEM, paper.asked.question]
        if form == "history":
            assert [turn.role for turn in paper.turns] == ["user", "assistant", "user"]
            assert paper.turns[-1].text == paper.asked.question


def test_what_is_off_topic_is_answered_at_once(world: World) -> None:
    found = off_topic(world, "train", random.Random(0))
    replies = set()
    for _ in range(400):
        item = next(found)
        [turn] = item.turns
        assert (item.kind, turn.query, turn.passages) == (KIND, None, ())
        assert turn.text.startswith("<think> ")
        assert turn.text.endswith(f"</think>\n<answer> {item.golden_answers[0]} </answer>")
        assert "<" not in item.golden_answers[0]
        replies.add(item.golden_answers[0])
    assert len(replies) == 4


@pytest.mark.parametrize(
    ("question", "query", "lower_question", "lower_query"),
    [
        ("Where is Timbuktu?", "country of Timbuktu", "where is timbuktu?", "country of timbuktu"),
        ("A: Mali\n\nIts Capital?", "capital of Mali", "A: Mali\n\nits capital?", "capital of Mali"),
        (
            "A: B\n\nAnd in the Bahamas?",
            "capital of the Bahamas",
            "A: B\n\nand in the bahamas?",
            "capital of the bahamas",
        ),
    ],
)
def test_lower_case_is_the_last_questions_alone(
    question: str, query: str, lower_question: str, lower_query: str
) -> None:
    turns = (
        DemonstratedTurn(f"<think> I need it. </think>\n<search> {query} </search>", query),
        DemonstratedTurn("<think> So it is Mali. </think>\n<answer> Mali </answer>"),
    )
    item = Demonstration("id", question, ("Mali",), 1, "city-country", turns, {})
    lower = in_lower_case(item)
    assert lower.question == lower_question
    assert lower.turns[0].query == lower_query
    assert f"<search> {lower_query} </search>" in lower.turns[0].text
    assert lower.turns[1:] == turns[1:]
