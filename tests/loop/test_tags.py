"""The tag scanner, against regular expressions over the whole text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.profiles.search_r1 import TAGS
from searchr1.loop.tags import Piece, TagScanner
from searchr1.loop.types import ActionKind
from tests.loop.scripts import chunkings, model_texts


def scan(pieces: list[str]) -> tuple[TagScanner, list[Piece]]:
    scanner = TagScanner(TAGS)
    shown = [shown for piece in pieces for shown in scanner.feed(piece)]
    if not scanner.settled:
        shown += scanner.close()
    return scanner, shown


def text_of(pieces: list[Piece], kind: str) -> str:
    return "".join(piece.text for piece in pieces if piece.kind == kind)


def cut(text: str) -> str:
    end = re.search(r"</search>|</answer>", text)
    return text[: end.end()] if end else text


def visible(text: str) -> tuple[str, str]:
    """Reasoning and answer text of a whole turn, by its description in ``tags.py``."""
    text = cut(text)
    tag = re.search(r"</?(search|answer)>", text)
    before = text[: tag.start()] if tag else text
    thought = re.sub(r"</?think>", "", before).strip()
    if tag is None or tag[0] != "<answer>":
        return thought, ""
    return thought, re.sub(r"</(search|answer)>$", "", text[tag.end() :]).strip()


@given(st.data(), model_texts())
def test_any_chunking_shows_what_the_whole_text_shows(data: st.DataObject, text: str) -> None:
    scanner, shown = scan(data.draw(chunkings(text)))
    assert scanner.text == cut(text)
    assert (text_of(shown, "think"), text_of(shown, "answer")) == visible(text)


@given(model_texts())
def test_one_character_at_a_time_shows_the_same(text: str) -> None:
    scanner, shown = scan(list(text))
    assert scanner.text == cut(text)
    assert (text_of(shown, "think"), text_of(shown, "answer")) == visible(text)


@given(st.data(), model_texts())
def test_the_text_so_far_is_never_more_or_less_than_what_came(data: st.DataObject, text: str) -> None:
    scanner = TagScanner(TAGS)
    seen = ""
    for piece in data.draw(chunkings(text)):
        scanner.feed(piece)
        seen += piece
        assert scanner.text == cut(seen)
        assert scanner.settled == bool(re.search(r"</search>|</answer>", seen))


@given(model_texts())
def test_reasoning_comes_before_the_answer_and_no_piece_is_empty(text: str) -> None:
    _, shown = scan(list(text))
    kinds = [piece.kind for piece in shown]
    assert kinds == sorted(kinds, key=["think", "answer"].index)
    assert all(piece.text for piece in shown)


@given(model_texts())
def test_an_action_is_the_first_closed_pair_of_the_cut_text(text: str) -> None:
    match = re.search(r"<(search|answer)>(.*?)</\1>", cut(text), re.DOTALL)
    assert TAGS.first_action(cut(text)) == ((match[1], match[2].strip()) if match else ("invalid", ""))


@given(model_texts())
def test_a_settled_scanner_drops_what_follows(text: str) -> None:
    scanner, _ = scan(["<search> q </search>"])
    assert scanner.feed(text) == []
    assert scanner.text == "<search> q </search>"


@pytest.mark.parametrize(
    ("text", "kind", "content"),
    [
        ("<think> a </think> <search> q </search>", "search", "q"),
        ("<answer>\n Bamako \n</answer>", "answer", "Bamako"),
        ("<search></search>", "search", ""),
        ("<answer> </answer>", "answer", ""),
        ("<search> line one\nline two </search>", "search", "line one\nline two"),
        ("<search> a <answer> b </answer>", "answer", "b"),
        ("<answer> a <search> b </search>", "search", "b"),
        ("<search> a <search> b </search>", "search", "a <search> b"),
        ("<answer> <think> b </think> </answer>", "answer", "<think> b </think>"),
        ("</search>", "invalid", ""),
        ("<search> q </answer>", "invalid", ""),
        ("<search> q", "invalid", ""),
        ("<Search> q </Search>", "invalid", ""),
        ("< search> q < /search>", "invalid", ""),
        ("<search > q </search>", "invalid", ""),
        ("", "invalid", ""),
    ],
)
def test_actions(text: str, kind: ActionKind, content: str) -> None:
    assert TAGS.first_action(text) == (kind, content)


def test_a_tag_that_may_still_come_is_held_back() -> None:
    scanner = TagScanner(TAGS)
    assert scanner.feed("so </sear") == [Piece("think", "so")]
    assert scanner.feed("ly") == [Piece("think", " </searly")]


def test_a_torn_tag_at_the_end_is_text() -> None:
    scanner = TagScanner(TAGS)
    scanner.feed("<answer> 5 < 6 </answ")
    assert scanner.close() == [Piece("answer", " </answ")]


@pytest.mark.parametrize("text", ["<", "<th", "<think", "<think> so </thin", "<answer> so </answ", "<search> so </se"])
def test_half_a_tag_at_the_token_limit_is_kept_and_not_shown(text: str) -> None:
    scanner = TagScanner(TAGS)
    shown = [*scanner.feed(text), *scanner.close(cut=True)]
    assert scanner.text == text
    assert "<" not in "".join(piece.text for piece in shown)


def test_what_is_no_tag_is_shown_at_the_token_limit() -> None:
    scanner = TagScanner(TAGS)
    assert [*scanner.feed("<think> 5 < 6"), *scanner.close(cut=True)] == [Piece("think", "5 < 6")]


def test_a_query_is_never_shown() -> None:
    _, shown = scan(list("<think> t </think><search> secret query </search>"))
    assert shown == [Piece("think", "t")]


def test_the_first_settled_query_stays() -> None:
    scanner = TagScanner(TAGS)
    scanner.feed("<think> t </think> <search> q </search")
    assert scanner.query == "q"
    scanner.feed("ing </search>")
    assert (scanner.query, TAGS.first_action(scanner.text)) == ("q", ("search", "q </searching"))
