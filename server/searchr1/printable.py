"""Text of models, servers and files without what could steer a terminal."""

import unicodedata

_STEERS_LINES = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's signs of the reading direction, which can make a text look like another."""


def printable(text: str) -> str:
    """Return ``text`` without control characters and signs of the reading direction; line breaks and tabs stay."""
    return "".join(
        char
        for char in text
        if char in "\n\t" or (unicodedata.category(char) not in ("Cc", "Cs") and char not in _STEERS_LINES)
    )


def one_line(text: str) -> str:
    """Return ``printable`` text on one line; its indent stays."""
    text = printable(text)
    return " ".join(part.rstrip() if i == 0 else part.strip() for i, part in enumerate(text.splitlines()))
