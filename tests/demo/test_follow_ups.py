"""Follow-ups by rules: what people write after an answer about a place, and what must stay as it is."""

import pytest

from searchr1.atlas.questions import generate
from searchr1.atlas.talk.conversations import asked
from searchr1.atlas.talk.exam import exam
from searchr1.atlas.world import load_world
from searchr1.demo.follow_ups import standalone
from searchr1.loop.conversation import Turn

CURRENCY = ("Which currency is used in Mali?", "West African CFA franc")
CAPITAL = ("What is the capital of Fiji?", "Suva")
CITY = ("Which country is Timbuktu in?", "Mali")
OF_CITY = ("Which currency is used in the country where Timbuktu is?", "West African CFA franc")


def asked_after(before: tuple[str, ...], text: str) -> str:
    turns = [Turn(("user", "assistant")[place % 2], message) for place, message in enumerate(before)]
    return standalone([*turns, Turn("user", text)])


@pytest.mark.parametrize(
    "text",
    [
        "And in Chad?",
        "And Chad?",
        "and chad",
        "What about Chad?",
        "How about Chad",
        "how about in Chad?",
        "And for Chad?",
        "Same for Chad please",
        "Same question for Chad.",
        "Thanks! And Chad?",
        "OK, and what about Chad?",
        "Chad?",
        "In Chad?",
        "Now Chad",
        "And what is it in Chad?",
        "Can you tell me the same about Chad?",
        "Could you do Chad as well?",
        "Next: Chad",
    ],
)
def test_the_same_of_another_place(text: str) -> None:
    assert asked_after(CURRENCY, text).lower() == "which currency is used in chad?"


@pytest.mark.parametrize(
    ("before", "text", "question"),
    [
        (CURRENCY, "What is its capital?", "What is the capital of Mali?"),
        (CURRENCY, "and the capital?", "What is the capital of Mali?"),
        (CURRENCY, "And which continent is it on?", "On which continent is Mali?"),
        (CURRENCY, "What language do they speak there?", "Which language is spoken in Mali?"),
        (CURRENCY, "Who are its neighbours?", "Which country borders Mali?"),
        (CURRENCY, "How many people live there?", "What is the population of Mali?"),
        (CURRENCY, "What is the time zone of its capital?", "What is the time zone of the capital of Mali?"),
        (CURRENCY, "Name the capital of one of its neighbors.", "What is the capital of a neighbour of Mali?"),
        (CAPITAL, "And which currency is used there?", "Which currency is used in Fiji?"),
        (CAPITAL, "And its population?", "What is the population of Suva?"),
        (CAPITAL, "What time zone is it in?", "What is the time zone of Suva?"),
        (CAPITAL, "What do people pay with there?", "Which currency is used in Fiji?"),
        (CITY, "And its currency?", "Which currency is used in Mali?"),
        (CITY, "What is the capital of that country?", "What is the capital of Mali?"),
        (CITY, "And Lima?", "Which country is Lima in?"),
        (("Where is Lyon?", "It is France."), "What language is spoken there?", "Which language is spoken in France?"),
        (("Where is Lyon?", "**France** [1]"), "And its capital?", "What is the capital of France?"),
        (OF_CITY, "And Lima?", "Which currency is used in the country where Lima is?"),
        (OF_CITY, "And the country of Lima?", "Which currency is used in the country of Lima?"),
        (OF_CITY, "What is its capital?", "What is the capital of the country where Timbuktu is?"),
        ((*CITY, "And its capital?", "Bamako"), "And its population?", "What is the population of Bamako?"),
        ((*CITY, "And its capital?", "Bamako"), "And the currency?", "Which currency is used in Mali?"),
        (
            (*CURRENCY, "And in Chad?", "Central African CFA franc"),
            "What is its capital?",
            "What is the capital of Chad?",
        ),
        ((*CAPITAL, "Thanks!", "You are welcome."), "And Chad?", "What is the capital of Chad?"),
        (
            ("Name the capital of Peru", "The capital of Peru is Lima.", "How about Bolivia", "Sucre"),
            "Same for the Netherlands please",
            "What is the capital of the Netherlands?",
        ),
    ],
)
def test_it_is_the_place_that_was_talked_about(before: tuple[str, ...], text: str, question: str) -> None:
    assert asked_after(before, text) == question


@pytest.mark.parametrize("before", [CURRENCY, CAPITAL, CITY, OF_CITY, ("hello", "Hello! How can I help?"), ()])
@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Chad?",
        "what currency is used in chad",
        "capital of Kenya",
        "Please tell me: Which country borders Chad?",
        "In the country where Lima is, how many people live in the capital?",
        "Hello",
        "Thanks!",
        "Why?",
        "Who are you?",
        "What is 2+2?",
        "Who wrote Hamlet?",
        "Tell me a long story",
        "### Task:\nGenerate a title.\n### Chat History:\nUSER: What is its capital?\nASSISTANT: Bamako",
        "def f(x):\n    return x",
        "Wie geht es dir?",
        "",
        "?",
        "\n",
    ],
)
def test_what_stands_for_itself_stays_as_it_is(before: tuple[str, ...], text: str) -> None:
    assert asked_after(before, text) == text


@pytest.mark.parametrize(
    "text",
    [
        "And what is the capital of Peru?",
        "whats the capital of peru?",
        "What's the capital city of Peru?",
        "I want to know the capital of Peru",
        "the capital of France is Paris, right?",
        "what do they speak in Peru?",
        "What money do they use in Peru?",
        "which currency does peru use?",
        "What is the time zone in Lima?",
        "How many people are there in Lima?",
        "who are the neighbours of Peru",
        "What is the biggest country in the world?",
        "What is the language of Python?",
    ],
)
@pytest.mark.parametrize("before", [CURRENCY, CAPITAL, CITY])
def test_a_new_question_is_never_about_the_place_before(before: tuple[str, ...], text: str) -> None:
    assert asked_after(before, text) == text


def test_a_question_that_stays_as_it_is_is_what_comes_next_is_about() -> None:
    before = (*CAPITAL, "And what is the capital of Peru?", "Lima")
    assert asked_after(before, "And its currency?") == "Which currency is used in Peru?"


@pytest.mark.parametrize(
    "text", ["and there?", "Really?", "Thanks, John!", "in French please", "What about the food?", "and 2+2?", "Nice!"]
)
def test_what_is_no_place_of_the_world_is_no_new_place(text: str) -> None:
    assert asked_after(CURRENCY, text) == text


@pytest.mark.parametrize("chat", ["Thanks!", "ok", "tell me more", "Really?"])
def test_what_is_said_to_chatter_is_no_place(chat: str) -> None:
    before = (*CURRENCY, chat, "You are welcome! I answer questions about countries and cities.")
    assert asked_after(before, "And the capital?") == "What is the capital of Mali?"
    assert asked_after(before, "How many people live there?") == "What is the population of Mali?"


@pytest.mark.parametrize("text", ["And in Chad?", "What is its capital?"])
def test_without_anything_before_it_an_ellipsis_stays(text: str) -> None:
    assert asked_after((), text) == text
    assert asked_after(("Tell me a joke", "No."), text) == text


def test_nearly_all_of_an_exam_is_understood() -> None:
    """Half of its ellipses are in words that the rules were not written from."""
    papers = exam(load_world(), generate(load_world(), "test", 300, 0), "follow-up")
    understood = 0
    for paper in papers:
        question = standalone(paper.turns)
        alone = standalone([Turn("user", question)])
        assert alone == question
        understood += paper.asked.entities[0] in question and question != paper.turns[-1].text
    assert understood >= 0.97 * len(papers)
    assert {asked(paper.asked.kind) for paper in papers} > {"capital", "currency", "neighbour"}


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Chad?",
        "WHAT IS THE CAPITAL OF CHAD?",
        "where is timbuktu",
        "capital of chad",
        "Please tell me: Which currency is used in Mali?",
        "I would like to know how people pay in Chad",
        "Chad's currency?",
        "How many inhabitants does Bamako have?",
        "Which city is the seat of government of Chad?\n",
        "",
    ],
)
def test_what_the_world_can_be_asked_stays_as_it_is(text: str) -> None:
    assert standalone([Turn("user", text)]) == text
