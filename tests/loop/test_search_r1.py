"""The texts of the profile ``search-r1``, compared with what the reference's training code writes, byte for byte."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Passage

QUESTION_TEMPLATE = (
    "Answer the given question. You must conduct reasoning inside <think> and </think> first every time you get new "
    "information. After reasoning, if you find you lack some knowledge, you can call a search engine by <search> query "
    "</search> and it will return the top searched results between <information> and </information>. You can search as "
    "many times as your want. If you find no further external knowledge needed, you can directly provide the answer "
    "inside <answer> and </answer>, without detailed illustrations. For example, <answer> Beijing </answer>. "
    "Question: %s\n"
)


@pytest.mark.parametrize(
    ("question", "asked"),
    [
        ("who wrote it?", "who wrote it?"),
        ("  who wrote it \n", "who wrote it?"),
        ("who wrote it ?", "who wrote it ?"),
        ("who wrote {question} and %s", "who wrote {question} and %s?"),
        ("", "?"),
    ],
)
def test_prompt(question: str, asked: str) -> None:
    assert SEARCH_R1.prompt(question) == QUESTION_TEMPLATE.replace("%s", asked, 1)


def test_observation() -> None:
    found = [Passage("1", '"Mali"', "A country.\nIts capital is Bamako."), Passage("2", '"Fiji"', "Islands.")]
    assert SEARCH_R1.observation(found) == (
        '\n\n<information>Doc 1(Title: "Mali") A country.\nIts capital is Bamako.\n'
        'Doc 2(Title: "Fiji") Islands.</information>\n\n'
    )


def test_an_empty_result_is_an_empty_block() -> None:
    assert SEARCH_R1.observation([]) == "\n\n<information></information>\n\n"


def test_retry() -> None:
    assert SEARCH_R1.retry == (
        "\nMy previous action is invalid. If I want to search, I should put the query between <search> and </search>. "
        "If I want to give the final answer, I should put the answer between <answer> and </answer>. "
        "Let me try again.\n"
    )


def by_lines(contents: Sequence[str]) -> str:
    """The reference's rule over upstream ``contents``: the first line is the title, the others are the text."""
    results = ""
    for number, (title, *lines) in enumerate((text.split("\n") for text in contents), start=1):
        results += f"Doc {number}(Title: {title}) " + "\n".join(lines) + "\n"
    return "\n\n<information>" + results.strip() + "</information>\n\n"


@given(st.lists(st.text(alphabet=st.sampled_from('ab"\n\r\t \u2028<>')), max_size=4))
def test_passages_from_contents_read_as_the_reference_reads_them(contents: list[str]) -> None:
    found = [Passage.from_contents(text) for text in contents]
    assert SEARCH_R1.observation(found) == by_lines(contents)


@given(st.text())
def test_contents_survive_a_passage(contents: str) -> None:
    assert Passage.from_contents(contents).contents.rstrip("\n") == contents.rstrip("\n")
