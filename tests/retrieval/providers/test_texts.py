"""Texts of web results: cut by whole sentences, freed of markup."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.retrieval.providers.web import plain_text, trim


@pytest.mark.parametrize(
    ("text", "max_chars", "expected"),
    [
        ("One. Two.", 9, "One. Two."),
        ("One. Two.", 8, "One."),
        ("It is 3.5 m. Then", 8, "It is"),
        ('He said "no." And left.', 15, 'He said "no."'),
        ("第一句。第二句很长很长", 7, "第一句。"),
        ("「第一句。」第二句很长很长", 8, "「第一句。」"),
        ("no end in sight here", 11, "no end in"),
        ("x" * 50, 10, "x" * 10),
        ("🌍" * 50, 3, "🌍🌍🌍"),
        ("", 5, ""),
    ],
)
def test_a_text_is_cut_at_a_sentence_else_at_a_word(text: str, max_chars: int, expected: str) -> None:
    assert trim(text, max_chars) == expected


@given(st.text(alphabet='ab .!?。」"\n🌍', max_size=60), st.integers(1, 40))
def test_what_is_kept_is_the_start_and_fits(text: str, max_chars: int) -> None:
    kept = trim(text, max_chars)
    assert text.startswith(kept)
    assert len(kept) <= max_chars
    assert kept == text or len(text) > max_chars


@pytest.mark.parametrize(
    ("markup", "expected"),
    [
        ("<strong>Mali</strong> &amp; Niger", "Mali & Niger"),
        ('<a href="javascript:x">link</a>', "link"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("&lt;b&gt; stays text", "<b> stays text"),
        ("Caf&eacute; &#39;x&#39;", "Café 'x'"),
    ],
)
def test_markup_goes_and_entities_are_resolved(markup: str, expected: str) -> None:
    assert plain_text(markup) == expected
