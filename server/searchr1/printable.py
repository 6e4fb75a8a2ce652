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
_HALF_PAIR: Final = re.compile(f"[{_SURROGATES}]")

STEERING: Final = re.compile(f"[{_CONTROLS}{_CONTROLS_BEYOND_ASCII}{_DIRECTION}{_SURROGATES}]")
"""What no text may hold that is shown."""
BREAKS_A_LINE: Final = re.compile(f"[\t\n{_LINE_SEPARATORS}{STEERING.pattern[1:-1]}]")
"""What no line may hold that must stay one line, such as those of the log."""
STEERING_IN_JSON: Final = re.compile(f"[{_CONTROLS_BEYOND_ASCII}{_LINE_SEPARATORS}{_DIRECTION}]")
"""The part of it that JSON lets stand in a string as it is; JSON escapes ASCII's controls."""


def has_half_pair(text: str) -> bool:
    """Return whether ``text`` holds half of a surrogate pair, which no encoding can write."""
    return not text.isascii() and _HALF_PAIR.search(text) is not None


def json_escaped(character: str) -> str:
    """Return a character as JSON escapes it: UTF-16, in one or two units."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def plain_json_text(json: str) -> str:
    """Return a JSON text of the same value with ``STEERING_IN_JSON`` escaped: what reads it sees no difference."""
    return STEERING_IN_JSON.sub(lambda match: json_escaped(match[0]), json)


def plain_json(json: bytes) -> bytes:
    """Return JSON of the same value whose bytes neither steer a terminal nor break a line, however one splits lines.

    Some clients split a stream at Unicode's line breaks as at a newline, and people read answers in terminals and logs.
    """
    if json.isascii() and b"\x7f" not in json:
        return json
    text = json.decode()
    return json if STEERING_IN_JSON.search(text) is None else plain_json_text(text).encode()


def printable(text: str) -> str:
    """Return ``text`` without control characters and signs of the reading direction; line breaks and tabs stay."""
    return STEERING.sub("", text)


def one_line(text: str) -> str:
    """Return ``printable`` text on one line; its indent stays."""
    text = printable(text)
    return " ".join(part.rstrip() if i == 0 else part.strip() for i, part in enumerate(text.splitlines()))
