"""Text of models, servers and files without what could steer a terminal or make a text look like another.

The only place that names these characters. What the model reads is a matter of its own: ``loop/sanitize.py``.
"""

import re
from typing import Final

_CONTROLS: Final = "\x00-\x08\x0b-\x1f"
"""ASCII's, but for the tab and the line feed, which texts may hold."""
_CONTROLS_BEYOND_ASCII: Final = "\x7f-\x9f"
_DIRECTION: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
"""Unicode's signs of the reading direction, which can make a text look like another."""
_LINE_SEPARATORS: Final = "\u2028\u2029"
_SURROGATES: Final = "\ud800-\udfff"
"""Halves of characters: no encoding can write them."""

STEERING: Final = re.compile(f"[{_CONTROLS}{_CONTROLS_BEYOND_ASCII}{_DIRECTION}{_SURROGATES}]")
"""What no text may hold that is shown."""
BREAKS_A_LINE: Final = re.compile(f"[\t\n{_LINE_SEPARATORS}{STEERING.pattern[1:-1]}]")
"""What no line may hold that must stay one line, such as those of the log."""
STEERING_IN_JSON: Final = re.compile(f"[{_CONTROLS_BEYOND_ASCII}{_LINE_SEPARATORS}{_DIRECTION}]")
"""The part of it that JSON lets stand in a string as it is; JSON escapes ASCII's controls."""


def printable(text: str) -> str:
    """Return ``text`` without control characters and signs of the reading direction; line breaks and tabs stay."""
    return STEERING.sub("", text)


def one_line(text: str) -> str:
    """Return ``printable`` text on one line; its indent stays."""
    text = printable(text)
    return " ".join(part.rstrip() if i == 0 else part.strip() for i, part in enumerate(text.splitlines()))
