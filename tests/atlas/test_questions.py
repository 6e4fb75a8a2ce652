from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from searchr1.atlas.questions import KINDS, AtlasQuestion, answers, generate, hops_of, read_questions, write_questions
from searchr1.atlas.templates import ASK, CITY_DESCRIPTIONS
from searchr1.atlas.world import World


@pytest.fixture(scope="module")
def test_questions(world: World) -> tuple[AtlasQuestion, ...]:
    return generate(world, "test", 1000, 0)


@pytest.fixture(scope="module")
def train_questions(world: World) -> tuple[AtlasQuestion, ...]:
    return generate(world, "train", 3000, 0)


def test_questions_are_distinct_and_the_same_in_every_run(
    world: World, test_questions: Sequence[AtlasQuestion]
) -> None:
    assert len(test_questions) == 1000
    assert len({question.question for question in test_questions}) == 1000
    assert len({question.id for question in test_questions}) == 1000
    assert generate(world, "test", 1000, 0) == test_questions
    assert generate(world, "test", 1000, 1) != test_questions


def test_the_mix_of_hops_is_about_as_planned(test_questions: Sequence[AtlasQuestion]) -> None:
    assert {question.kind for question in test_questions} == set(KINDS)
    hops = Counter(question.hops for question in test_questions)
    assert 0.25 < hops[1] / 1000 < 0.35
    assert 0.45 < hops[2] / 1000 < 0.6
    assert 0.15 < hops[3] / 1000 < 0.25
    assert all(question.hops == hops_of(question.kind) for question in test_questions)


def test_test_questions_are_about_test_entities(world: World, test_questions: Sequence[AtlasQuestion]) -> None:
    topics = {city.name for city in world.cities_in("test")}
    topics |= {name for country in world.countries_in("test") for name in (country.phrase, country.capital)}
    assert {question.entities[0] for question in test_questions} <= topics


def test_no_train_question_or_answer_names_a_held_out_entity(
    world: World, train_questions: Sequence[AtlasQuestion]
) -> None:
    for question in train_questions:
        for text in (question.question, *question.golden_answers, *question.entities):
            assert not world.held_out.occurs_in(text), question


def test_every_relation_has_many_phrasings_and_the_demo_question_is_one() -> None:
    assert all(len(phrasings) >= 8 for phrasings in ASK.values())
    assert len(CITY_DESCRIPTIONS) >= 6
    asked = {ask.format(topic=topic.format(city="Timbuktu")) for ask in ASK["currency"] for topic in CITY_DESCRIPTIONS}
    assert "Which currency is used in the country where Timbuktu is?" in asked


def test_every_right_answer_is_accepted(world: World) -> None:
    mali = world.countries["ML"]
    assert answers(world, "test", "city-country-currency", mali)[0] == ("West African CFA franc", "XOF")
    assert answers(world, "test", "country-language", mali)[0] == ("French", "Bambara")
    neighbours = answers(world, "test", "country-neighbour", mali)[0]
    assert {"Senegal", "Niger", "Algeria", "Ivory Coast", "Guinea", "Mauritania", "Burkina Faso"} <= set(neighbours)
    assert "United States dollar" in answers(world, "test", "country-currency", world.countries["EC"])[0]
    assert answers(world, "train", "country-capital", world.countries["BR"])[0] == ("Brasília", "Brasilia")


def test_train_answers_leave_held_out_neighbours_out(world: World) -> None:
    senegal = world.countries["SN"]
    assert "Mali" in answers(world, "test", "country-neighbour", senegal)[0]
    assert "Mali" not in answers(world, "train", "country-neighbour", senegal)[0]


def test_a_neighbours_capital_is_asked_only_where_few_answers_are_right(world: World) -> None:
    assert answers(world, "test", "city-country-neighbour-capital", world.countries["ML"]) == ((), ())
    golds = answers(world, "test", "city-country-neighbour-capital", world.countries["PT"])[0]
    assert golds == ("Madrid",)


def test_questions_survive_their_file(tmp_path: Path, test_questions: Sequence[AtlasQuestion]) -> None:
    path = tmp_path / "questions.jsonl"
    assert write_questions(test_questions[:20], path) == 20
    assert tuple(read_questions(path)) == tuple(test_questions[:20])


def test_no_questions_are_asked_for(world: World) -> None:
    assert generate(world, "test", 0, 0) == ()
