"""Terms in every script: what is asked in a language is found in it, and English is as it was."""

import itertools
import json
import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from searchr1.atlas.corpus import entries
from searchr1.atlas.world import load_world
from searchr1.retrieval.index.bm25 import LocalIndex, build_index
from searchr1.retrieval.index.scripts import folded, words
from searchr1.retrieval.index.terms import TermSettings, TermSplitter
from tests.retrieval.index.languages import LANGUAGES

PASSAGES = [text for pairs in LANGUAGES.values() for text, _ in pairs]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalIndex]:
    """The passages of all languages together, as they are and in the other normal form, and by the first analyzer."""
    folder = tmp_path_factory.mktemp("languages")

    def built(name: str, form: Literal["NFC", "NFD"], settings: TermSettings) -> LocalIndex:
        lines = [
            json.dumps({"id": i, "contents": unicodedata.normalize(form, text)}) for i, text in enumerate(PASSAGES)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
        build_index(folder / f"{name}.jsonl", folder / name, progress=False, tokenizer=settings)
        return LocalIndex.open(folder / name)

    new = TermSettings()
    return {
        "nfc": built("nfc", "NFC", new),
        "nfd": built("nfd", "NFD", new),
        "first": built("first", "NFC", TermSettings(analyzer=1)),
    }


def recall(index: LocalIndex, language: str, k: int) -> float:
    pairs = LANGUAGES[language]
    first = PASSAGES.index(pairs[0][0])
    found = index.search_batch([query for _, query in pairs], k)
    return sum(str(first + i) in {p.id for p in passages} for i, passages in enumerate(found)) / len(pairs)


@pytest.mark.parametrize("form", ["nfc", "nfd"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_asked_in_a_language_is_found(indexes: dict[str, LocalIndex], language: str, form: str) -> None:
    assert len(LANGUAGES[language]) >= 5
    assert recall(indexes[form], language, 3) == 1.0
    assert recall(indexes[form], language, 1) >= 0.8


def test_the_questions_are_not_trivial(indexes: dict[str, LocalIndex]) -> None:
    found = {language: recall(indexes["first"], language, 3) for language in LANGUAGES}
    assert found["chinese"] < 0.2
    assert found["korean"] < 0.6
    assert found["turkish"] < 1.0


@pytest.mark.parametrize(
    "spellings",
    [
        ("İSTANBUL", "istanbul", "Istanbul", "ıstanbul"),
        ("Straße", "STRASSE", "strasse"),
        ("Łódź", "lodz", "LÓDZ", "Lo\u0301dz\u0301"),
        ("Hà Nội", "ha noi", "HA\u0300 NO\u0323\u0302I"),
        ("ΟΔΌΣ", "οδος", "οδοσ"),
        ("Ёж", "еж", "Е\u0308ж"),
        ("مَدْرَسَةٌ", "مدرسة", "مـدرسـة", "مدرسه"),
        ("ﷲ", "الله"),
        ("کتاب", "كتاب"),
        ("שָׁלוֹם", "שלום", "\ufb2a\u05b8לום"),
        ("ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("ｶﾞｷﾞ", "ガギ", "カ\u3099キ\u3099"),
        ("२०२४", "٢٠٢٤", "２０２４", "2024"),
        ("हिँदी", "हिंदी"),
        ("नही\u200cं", "नहीं"),
        ("co\u00adoperate", "cooperate"),
        ("서울", "\u1109\u1165\u110b\u116e\u11af"),
    ],
)
def test_spellings_that_read_the_same_are_one(spellings: tuple[str, ...]) -> None:
    terms = TermSplitter(TermSettings()).terms
    assert len({tuple(terms(spelling)) for spelling in spellings}) == 1
    assert terms(spellings[0])


@pytest.mark.parametrize(("one", "other"), [("बाल", "बिल"), ("கல", "கால"), ("か", "が"), ("พา", "พี"), ("ก", "ข")])
def test_marks_that_are_vowels_or_other_sounds_count(one: str, other: str) -> None:
    assert words(folded(one)) != words(folded(other))


def test_scripts_may_mix() -> None:
    assert words(folded("Python入門、第3版")) == ["python", "入", "門", "入門", "第", "3", "版"]
    assert words(folded("ភាសាខ្មែរ")) == ["ភា", "សា", "ខ្មែ", "រ", "ភាសា", "សាខ្មែ", "ខ្មែរ"]
    assert words(folded("दिल्ली है।")) == ["दिल्ली", "है"]


def test_an_english_stemmer_leaves_other_scripts_alone() -> None:
    terms = TermSplitter(TermSettings()).terms
    assert terms("cities столицами") == ["citi", "столицами"]


def test_english_terms_are_those_of_the_first_analyzer() -> None:
    first, second = TermSplitter(TermSettings(analyzer=1)), TermSplitter(TermSettings())
    passages = [
        f'"{entry.title}"\n{entry.text}' for entry in itertools.islice(entries(load_world(), "all"), 0, None, 9)
    ]
    different = [text for text in passages if first.terms(text) != second.terms(text)]
    assert len(passages) > 3000
    assert len(different) / len(passages) < 0.01, "some Turkish and Vietnamese names"
    assert not [text for text in different if not set(text) & set("ıßøłđðþæœħŧĐŁØÆŒÞÐİ")]


def test_an_index_is_asked_by_its_own_analyzer(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"id": "1", "contents": "首都は東京"}\n')
    expected: tuple[tuple[Literal[1, 2], list[str]], ...] = ((1, []), (2, ["1"]))
    for analyzer, found in expected:
        out = tmp_path / str(analyzer)
        build_index(tmp_path / "c.jsonl", out, progress=False, tokenizer=TermSettings(analyzer=analyzer))
        if analyzer == 1:  # as an index was before there was a second one
            manifest = json.loads((out / "manifest.json").read_text())
            del manifest["tokenizer"]["analyzer"]
            (out / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
        assert [p.id for p in LocalIndex.open(out).search_batch(["東京"], 3)[0]] == found
    assert [p.id for p in LocalIndex.open(tmp_path / "1").search_batch(["首都は東京"], 3)[0]] == ["1"]
