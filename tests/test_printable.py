"""What is shown of foreign text: it moves no cursor, turns no text, and stays on its line where it must."""

import sys
import unicodedata

import pytest

from searchr1.printable import BREAKS_A_LINE, STEERING, STEERING_IN_JSON, printable

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
