import re
from collections.abc import Callable, Sequence

import pytest

from searchr1.atlas.questions import AtlasQuestion, generate
from searchr1.atlas.teacher import MAX_SEARCHES, Entity, Teacher
from searchr1.atlas.world import World
from searchr1.loop.types import Passage
from tests.atlas.conftest import demonstrate

Search = Callable[[str], Sequence[Passage]]
TIMBUKTU = AtlasQuestion(
    "q", "Which currency is used in the country where Timbuktu is?", ("West African CFA franc", "XOF"), 2,
    "city-country-currency", ("Timbuktu", "Mali"),
)  # fmt: skip
CITY = Passage("1", '"Timbuktu"', "On the map of Mali one finds Timbuktu.")
MONEY = Passage("2", '"Mali"', "The currency of Mali is the West African CFA franc (XOF).")
OTHER = Passage("3", '"Niger"', "The currency of Niger is the West African CFA franc (XOF).")


@pytest.fixture(scope="module")
def teacher(world: World) -> Teacher:
    return Teacher(world)


def test_it_plans_searches_reads_and_answers(teacher: Teacher) -> None:
    found = {"country of Timbuktu": [OTHER, CITY], "currency of Mali": [MONEY, OTHER]}
    demonstration = demonstrate(teacher, TIMBUKTU, found.__getitem__)
    assert demonstration is not None
    assert [turn.text for turn in demonstration.turns] == [
        "<think> I need the currency of the country of Timbuktu. First: the country of Timbuktu. </think>\n"
        "<search> country of Timbuktu </search>",
        '<think> Doc 2(Title: "Timbuktu") On the map of Mali one finds Timbuktu. So Timbuktu is in Mali. '
        "Now I need the currency of Mali. </think>\n"
        "<search> currency of Mali </search>",
        '<think> Doc 1(Title: "Mali") The currency of Mali is the West African CFA franc (XOF). '
        "So the currency of Mali is West African CFA franc. This is the answer. </think>\n"
        "<answer> West African CFA franc </answer>",
    ]
    assert [turn.query for turn in demonstration.turns] == ["country of Timbuktu", "currency of Mali", None]
    assert demonstration.entities == {"Timbuktu": "city", "Mali": "country", "West African CFA franc": "currency"}
    row = demonstration.to_row()
    assert row["turns"][1]["passages"][0] == {"title": '"Mali"', "text": MONEY.text}
    assert row["turns"][2] == {"text": demonstration.turns[2].text, "query": None, "passages": []}


def test_a_fact_of_another_entity_is_not_taken_and_it_searches_again(teacher: Teacher) -> None:
    found = {"country of Timbuktu": [CITY], "currency of Mali": [OTHER], "money used in Mali": [MONEY]}
    demonstration = demonstrate(teacher, TIMBUKTU, found.__getitem__)
    assert demonstration is not None
    assert demonstration.turns[2].text == (
        "<think> The passages do not give the currency of Mali. I search again. </think>\n"
        "<search> money used in Mali </search>"
    )


def test_without_the_fact_there_is_no_demonstration(teacher: Teacher) -> None:
    asked: list[str] = []

    def search(query: str) -> list[Passage]:
        asked.append(query)
        return [CITY]

    assert demonstrate(teacher, TIMBUKTU, search) is None
    assert asked == ["country of Timbuktu", "currency of Mali", "money used in Mali"]


def test_it_never_searches_more_often_than_the_loop_allows(teacher: Teacher, world: World, oracle: Search) -> None:
    [question, *_] = [q for q in generate(world, "test", 200, 0) if q.hops == 3]
    asked: list[str] = []

    def every_second(query: str) -> Sequence[Passage]:
        asked.append(query)
        return () if len(asked) % 2 else oracle(query)

    assert demonstrate(teacher, question, every_second) is None
    assert len(asked) <= MAX_SEARCHES


def test_the_capital_passage_of_the_country_also_says_where_a_city_is(teacher: Teacher) -> None:
    question = AtlasQuestion("q", "?", ("Africa",), 2, "capital-country-continent", ("Bamako", "Mali"))
    capital = Passage("4", '"Mali"', "The seat of government and capital of Mali is Bamako.")
    continent = Passage("5", '"Mali"', "Mali belongs to the continent Africa.")
    demonstration = demonstrate(teacher, question, lambda query: [capital if "Bamako" in query else continent])
    assert demonstration is not None
    assert demonstration.turns[-1].text.endswith("<answer> Africa </answer>")


def test_a_quote_ends_with_the_sentence_that_gives_the_fact(teacher: Teacher, world: World) -> None:
    text = "Mali belongs to the continent Africa. It borders Niger and Senegal. It covers 1,240,000 square kilometres."
    geography = Passage("7", '"Mali"', text)
    mali = Entity("Mali", "Mali", world.countries["ML"])
    assert teacher.quote("continent", mali, geography) == '(Title: "Mali") Mali belongs to the continent Africa.'
    assert teacher.quote("neighbour", mali, geography).endswith("Africa. It borders Niger and Senegal.")
    grenada = Entity("Grenada", "Grenada", world.countries["GD"])
    capital = Passage("8", '"Grenada"', "The capital is St. George's. Maps mark it with a star.")
    assert teacher.quote("capital", grenada, capital).endswith(" The capital is St. George's.")
    islands = Passage(
        "9", '"U.S. Virgin Islands"', "On the continent of North America lie the U.S. Virgin Islands. Yes."
    )
    virgin = Entity("the U.S. Virgin Islands", "U.S. Virgin Islands", world.countries["VI"])
    assert teacher.quote("continent", virgin, islands).endswith("North America lie the U.S. Virgin Islands.")


def test_a_continent_in_the_countrys_own_name_is_no_statement(teacher: Teacher) -> None:
    question = AtlasQuestion("q", "?", ("Africa",), 1, "country-continent", ("South Africa",))
    people = Passage("6", '"South Africa"', "South Africa counts 57,779,622 inhabitants.")
    assert demonstrate(teacher, question, lambda query: [people]) is None


def test_every_test_question_is_answered_rightly_from_what_the_corpus_says(
    teacher: Teacher, world: World, oracle: Search
) -> None:
    for question in generate(world, "test", 1000, 0):
        demonstration = demonstrate(teacher, question, oracle)
        assert demonstration is not None, question
        assert len(demonstration.turns) == question.hops + 1
        answer = re.findall(r"<answer> (.*) </answer>", demonstration.turns[-1].text)[0]
        assert answer.removeprefix("the ") in question.golden_answers, question
        for searched, stated in zip(demonstration.turns, demonstration.turns[1:], strict=False):
            quotes = re.findall(r"Doc (\d+)(.*) So .* (?:is in|borders|is) (.+?)\. (?:Now|This)", stated.text)
            [(number, quote, value)] = quotes
            passage = searched.passages[int(number) - 1]
            assert f"(Title: {passage.title}) {passage.text} ".startswith(f"{quote} "), stated.text
            assert value in quote.partition(") ")[2], stated.text
