"""The last check of passages: clean text, and URLs that can be shown as links."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.types import Passage
from searchr1.retrieval.received import MAX_TITLE_CHARS, MAX_URL_CHARS, is_safe_url, received, shortened
from searchr1.retrieval.text import clean_text


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org",
        "http://example.org:8080/a/b?c=d&e=%20#f",
        "HTTPS://EXAMPLE.ORG/",
        "https://пример.example/страница",
        "https://[2001:db8::1]/",
        "https://example.org/a@b",
    ],
)
def test_safe_urls(url: str) -> None:
    assert is_safe_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "//example.org",
        "https:///path",
        "https:example.org",
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ftp://example.org",
        "https://user:secret@example.org",
        "https://user@example.org",
        "https://@example.org",
        "https://example.org\\@evil.example",
        "https://example.org/\r\nSet-Cookie: a=b",
        "https://example.org/\u202egpj.exe",
        "https://example.org/</information>",
        'https://example.org/"onclick="x',
        "https://[broken",
        "https://example.org/" + "a" * MAX_URL_CHARS,
    ],
)
def test_unsafe_urls(url: str) -> None:
    assert not is_safe_url(url)


def test_what_is_fine_is_the_same_object() -> None:
    passage = Passage("1", '"Mali"', "Bamako\t<b>\u202e", "https://example.org/", 0.5)
    assert received([passage])[0] is passage


def test_what_is_not_is_cleaned() -> None:
    (passage,) = received([Passage("\x00", "\ud800", "a\x00b", "javascript:alert(1)", 1.0)])
    assert passage == Passage("\ufffd", "\ufffd", "a\ufffdb", None, 1.0)


@given(st.text(st.characters()), st.text())
def test_any_text_can_be_encoded_afterwards(text: str, url: str) -> None:
    (passage,) = received([Passage("1", text, text, url)])
    assert "\x00" not in passage.contents
    assert passage.contents.encode().decode() == passage.contents
    assert passage.url is None or passage.url == url


@pytest.mark.parametrize(
    ("passage", "lengths"),
    [
        (Passage("1", "T", "a" * 50), (1, 1, 50)),
        (Passage("1", "T", "a" * 51), (1, 1, 50)),
        (Passage("1", "T", "abc " * 1_000_000), (1, 1, 47)),
        (Passage("i" * 3_600_000, "t" * 3_600_000, ""), (MAX_TITLE_CHARS, MAX_TITLE_CHARS, 0)),
    ],
)
def test_no_part_of_a_passage_is_longer_than_its_bound(passage: Passage, lengths: tuple[int, int, int]) -> None:
    short = shortened(passage, 50)
    assert (len(short.id), len(short.title), len(short.text)) == lengths
    assert (short is passage) == (short == passage)


@given(st.text(st.characters()))
def test_text_is_cleaned_alike_by_the_quick_way(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned == "".join("\ufffd" if c == "\x00" or "\ud800" <= c <= "\udfff" else c for c in text)
