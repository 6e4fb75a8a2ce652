"""Words of text in any script: letters that readers take for the same are made one, and runs without spaces are cut.

Latin, Greek, Cyrillic, Hebrew and Arabic lose their marks (accents, niqqud, harakat); scripts whose marks are vowels
(Devanagari, Tamil, Thai, …) keep them. Scripts that put no spaces between words, and Hangul, whose words carry their
particles, become single letters and pairs of neighbors: whatever the words are, pairs of them are shared.
"""

import functools
import re
import unicodedata
from itertools import pairwise

# Fields of a character class: what the letters of a script are.
_NO_SPACES = (
    "\u0e01-\u0e4e"  # Thai
    "\u0e81-\u0ecd\u0edc-\u0edf"  # Lao
    "\u1000-\u103f\u1050-\u108f\u109a-\u109d\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Burmese
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1950-\u19df\u1a20-\u1a7f\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\u1b05-\u1b4b\ua984-\ua9c0"  # Balinese, Javanese
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30ff\u31f0-\u31ff"  # kana
    "\u3105-\u312f\u31a0-\u31bf\ua000-\ua48c"  # Bopomofo, Yi
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "\u1100-\u11ff\ua960-\ua97f\uac00-\ud7ff"  # Hangul
)
_STACKERS = "\u17d2\u1039\u1a60"
"""Signs that put the next letter below the one before: the two are one."""
_LAST_MARK = 0x1EFFF
"""The last combining mark, but for the variation selectors, which are dropped."""

_DROPPED = re.compile(
    "["
    "\u00ad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"  # not seen at all
    "\U000e0001-\U000e01ef"
    "\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"  # Latin, Greek, Cyrillic
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # niqqud
    "\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed\u08ca-\u08ff"  # harakat, tatweel
    "\u0711\u0730-\u074a"  # Syriac
    "\u093c"  # the dot that Hindi often leaves out
    "]+"
)
_ALIKE = {
    # Latin letters that have no decomposition, as people without their keys type them.
    **{"ı": "i", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ħ": "h", "ŧ": "t"},
    # Arabic and Persian.
    **{"\u0671": "\u0627", "\u0649": "\u064a", "\u06cc": "\u064a", "\u06a9": "\u0643", "\u0629": "\u0647"},
    **{"\u06c0": "\u0647", "\u06c1": "\u0647", "\u06d5": "\u0647", "\u06be": "\u0647", "\u06d2": "\u064a"},
    # Hindi's two signs of a nasal vowel.
    "\u0901": "\u0902",
}
_ALIKE_LETTER = re.compile(f"[{''.join(_ALIKE)}]")
_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_STEMMED = re.compile("[0-9_a-z\u00aa-\u02ff\u1d00-\u1dbf\u1e00-\u1eff]+")


def folded(text: str) -> str:
    """Return ``text`` with one spelling for what reads the same: case, width, accents, digits, forms of a letter."""
    if text.isascii():
        return text.lower()
    text = _DROPPED.sub("", unicodedata.normalize("NFKD", text))
    text = _ALIKE_LETTER.sub(lambda found: _ALIKE[found[0]], text.casefold())
    return unicodedata.normalize("NFC", _FOREIGN_DIGIT.sub(lambda found: str(unicodedata.digit(found[0])), text))


def words(text: str) -> list[str]:
    """Return the words of ``text`` in order; those of a run without spaces are its letters, then its pairs.

    >>> words("the capital, 首都は")
    ['the', 'capital', '首', '都', 'は', '首都', '都は']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text)
    patterns = _patterns()
    found: list[str] = []
    for match in patterns.word.finditer(text):
        if match.lastgroup is None:
            found.append(match[0])
        else:
            letters = patterns.letter.findall(match[0])
            found += letters
            found += [first + second for first, second in pairwise(letters)]
    return found


def is_latin(word: str) -> bool:
    """Tell whether a stemmer of English has anything to say to a folded word."""
    return word.isascii() or _STEMMED.fullmatch(word) is not None


_ASCII_WORD = re.compile(r"\w+")


class _Patterns:
    """The patterns that need every combining mark; finding these takes a moment that ASCII texts are spared."""

    def __init__(self) -> None:
        marks = _as_ranges([code for code in range(_LAST_MARK) if unicodedata.category(chr(code))[0] == "M"])
        stacked = f"[{_STACKERS}][{_NO_SPACES}]"
        letter = f"[{_NO_SPACES}](?:{stacked}|[{marks}])*"
        self.letter = re.compile(letter)
        self.word = re.compile(rf"(?P<run>(?:{letter})+)|(?:(?![{_NO_SPACES}])[\w{marks}])+")


@functools.cache
def _patterns() -> _Patterns:
    return _Patterns()


def _as_ranges(codes: list[int]) -> str:
    """Return a character class of ``codes``, which rise."""
    starts = [code for i, code in enumerate(codes) if i == 0 or codes[i - 1] != code - 1]
    ends = [code for i, code in enumerate(codes) if i + 1 == len(codes) or codes[i + 1] != code + 1]
    return "".join(f"{chr(start)}-{chr(end)}" for start, end in zip(starts, ends, strict=True))
