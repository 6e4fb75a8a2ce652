"""The end and the action of a turn, beside the reference's rule written out.

The reference lets the engine run to its token limit and cuts afterwards, giving ``</search>`` precedence wherever it
stands; a stop string ends the turn at whichever closing tag comes first (ADR 3). The two take the same action unless
a ``</answer>`` that no ``<answer>`` opened, or that stands within an open search, comes before a ``</search>``.
"""

import re

import pytest
from hypothesis import assume, given

from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import TagScanner
from tests.loop.scripts import model_texts


def reference_turn(sampled: str) -> tuple[str, tuple[str, str]]:
    """The turn's text and action by the reference's rule."""
    text = sampled
    for tag in ("</search>", "</answer>"):
        if tag in sampled:
            text = sampled[: sampled.index(tag) + len(tag)]
            break
    match = re.search(r"<(search|answer)>(.*?)</\1>", text, re.DOTALL)
    return text, (match[1], match[2].strip()) if match else ("invalid", "")


def our_turn(sampled: str) -> tuple[str, tuple[str, str]]:
    scanner = TagScanner(SEARCH_R1.tags)
    scanner.feed(sampled)
    return scanner.text, SEARCH_R1.action(scanner.text)


@given(model_texts())
def test_the_same_turn_unless_an_answer_closes_before_a_search_does(sampled: str) -> None:
    assume("</answer>" not in sampled.partition("</search>")[0] or "</search>" not in sampled)
    assert our_turn(sampled) == reference_turn(sampled)


@given(model_texts())
def test_the_same_action_unless_an_answer_closes_unopened_or_within_a_search(sampled: str) -> None:
    text, action = our_turn(sampled)
    stray = text.endswith("</answer>") and (action[0] == "invalid" or "<search>" in text)
    assume(not stray)
    assert action == reference_turn(sampled)[1]


@pytest.mark.parametrize(
    ("sampled", "ours", "reference"),
    [
        ("</answer> <search> q </search>", ("invalid", ""), ("search", "q")),
        ("<search> a </answer> b </search>", ("invalid", ""), ("search", "a </answer> b")),
        ("<search> <answer> a </answer> </search>", ("answer", "a"), ("search", "<answer> a </answer>")),
    ],
)
def test_a_stray_closing_answer_tag_ends_our_turn(
    sampled: str, ours: tuple[str, str], reference: tuple[str, str]
) -> None:
    assert our_turn(sampled)[1] == ours
    assert reference_turn(sampled)[1] == reference


def test_an_answer_before_a_search_is_the_same_action_with_less_text() -> None:
    sampled = "<answer> a </answer> or maybe <search> q </search>"
    assert our_turn(sampled) == ("<answer> a </answer>", ("answer", "a"))
    assert reference_turn(sampled) == (sampled, ("answer", "a"))
