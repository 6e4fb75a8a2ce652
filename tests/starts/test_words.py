"""Words: what holds an answer, where a sentence ends, and which one is quoted."""

import pytest

from searchr1.starts.words import MAX_QUOTE_WORDS, bare_title, content_words, held_answer, holds, quote, sentences

TEXT = (
    "St. Brenna's mill was built by J. R. Holm in 1820. The mill burned in 1850. "
    'He said: "It was old." In 1850 the harbor was founded (see below). '
)


def test_sentences_end_where_they_end() -> None:
    assert sentences(TEXT) == [
        "St. Brenna's mill was built by J. R. Holm in 1820.",
        "The mill burned in 1850.",
        'He said: "It was old."',
        "In 1850 the harbor was founded (see below).",
    ]
    assert sentences("") == []


def test_an_answer_is_held_as_whole_words() -> None:
    assert holds(TEXT, "the 1850")
    assert not holds(TEXT, "185")
    assert not holds(TEXT, "a")
    assert held_answer(TEXT, ["1860", "J.R. Holm", "J. R. Holm"]) == "J. R. Holm"
    assert held_answer(TEXT, []) is None


def test_the_sentence_about_the_question_is_quoted() -> None:
    assert quote(TEXT, "1850", "When was the harbor founded?") == "In 1850 the harbor was founded (see below)."
    assert quote(TEXT, "1850", "When did the mill burn down?") == "The mill burned in 1850."
    assert quote(TEXT, "1850", "Which king ruled then?") is None, "nothing but the answer is shared"
    assert quote(TEXT, "1900", "When was the harbor founded?") is None


@pytest.mark.parametrize("before", [0, 30, 90])
def test_a_long_sentence_is_cut_around_the_answer(before: int) -> None:
    text = f"{'word ' * before}the harbor was founded in 1850 {'and more ' * 40}end."
    said = quote(text, "1850", "When was the harbor founded?")
    assert said is not None
    assert said in text
    assert "1850" in said
    assert len(said.split()) <= MAX_QUOTE_WORDS


def test_titles_lose_quotes_and_brackets_but_never_everything() -> None:
    titles = ('"Holm (painter)"', "(Untitled)", '"1850"')
    assert [bare_title(title) for title in titles] == ["Holm", "(Untitled)", "1850"]
    words = content_words('Which of the "mills" was the older co-op, of two Mills?')
    assert words == {"mills": "mills", "older": "older", "coop": "co-op", "two": "two"}
