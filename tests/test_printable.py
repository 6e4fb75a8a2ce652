"""What is shown of foreign text: it moves no cursor, turns no text, and stays on its line where it must."""

import json
import sys
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.printable import BREAKS_A_LINE, STEERING, STEERING_IN_JSON, has_half_pair, plain_json, printable

BIDI = ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")
MARKS = "\u061c\u200e\u200f"  # of direction, whose classes are those of letters
EVERYTHING = "".join(map(chr, range(sys.maxunicode + 1)))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("\x1b[2Ja\x07b\rc\x00", "[2Jabc"),
        ("\x9b31mred\x85\x9d0;title\x9c", "31mred0;title"),
        ("\u202egpj.exe\u202c", "gpj.exe"),
        ("\u2066a\u2069\u200e\u200f\u061cb", "ab"),
        ("Où ça? 日本 שלום", "Où ça? 日本 שלום"),
    ],
)
def test_what_is_shown_moves_no_cursor_and_turns_no_text(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_the_sets_hold_every_control_and_every_sign_of_direction_that_unicode_has() -> None:
    controls = {c for c in EVERYTHING if unicodedata.category(c) in ("Cc", "Cs")}
    turning = {c for c in EVERYTHING if unicodedata.bidirectional(c) in BIDI} | set(MARKS)
    separators = set("\u2028\u2029")
    deprecated = set(map(chr, range(0x206A, 0x2070)))
    steering = (controls - set("\t\n")) | turning | deprecated
    assert set(STEERING.findall(EVERYTHING)) == steering
    assert set(BREAKS_A_LINE.findall(EVERYTHING)) == steering | separators | set("\t\n")
    in_json = {c for c in steering if c >= "\x7f" and unicodedata.category(c) != "Cs"}
    assert set(STEERING_IN_JSON.findall(EVERYTHING)) == in_json | separators


TEXTS = (
    st.text(alphabet=st.sampled_from('a"\\/\n\t\x00\x1b\x7f\x80\x85\x9b\u061c\u200d\u200f\u2028\u2029\u202e\u2069é日🂡'))
    | st.text()
)
VALUES = st.recursive(TEXTS | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner))


@given(VALUES)
def test_plain_json_has_the_same_value_and_nothing_that_steers(value: Any) -> None:
    for encoded in (msgspec.json.encode(value), json.dumps(value, ensure_ascii=False).encode()):
        plain = plain_json(encoded)
        assert json.loads(plain) == value
        assert not STEERING.search(plain.decode())
        assert len(plain.decode().splitlines()) <= 1
        assert plain_json(plain) is plain


@pytest.mark.parametrize(
    "text", ["", "Mali", "Mali\x00", "Málaga", "𝄞", "\ud7ff\ue000", "\ud800", "a\udfffb", "é\ud834"]
)
def test_half_a_pair_is_what_no_encoding_writes(text: str) -> None:
    try:
        text.encode()
        is_whole = True
    except UnicodeEncodeError:
        is_whole = False
    assert has_half_pair(text) is not is_whole
