"""A reader that takes disguises off text and looks for tags: written from the rules, without the code under test."""

import html
import re
import unicodedata

_NAMES = r"(?:search|answer|think|information|result|begin_search_(?:query|result)|end_search_(?:query|result))"
_TAGS = (
    rf"<[\s/|]*{_NAMES}",
    r"<\s*\|[^<>]*?\|\s*>",
    r"<\s*\|\s*(?:im_start|im_end|endoftext|eot_id)",
    r"\[\s*/?\s*(?:inst|tool_calls)\s*\]",
    r"<\s*/?\s*(?:s|bos|eos|pad|unk|mask)\s*>",
    r"<<\s*/?\s*sys\s*>>",
    r"<\s*/?\s*(?:start_of_turn|end_of_turn|tool_call)\s*>",
)
_TAG = re.compile("|".join(_TAGS))
_TOO_LONG = re.compile(r"&#[0-9]{1000,};?")
"""``html.unescape`` refuses these numbers."""


def visible(text: str) -> str:
    """Without format and control characters (white space stays), variation selectors and replacement characters."""
    return "".join(
        c
        for c in text
        if c in "\t\n\r"
        or not (unicodedata.category(c) in ("Cf", "Cc") or "\ufe00" <= c <= "\ufe0f" or c in "\u034f\u180e\ufffd")
    )


def normalized(text: str) -> str:
    """NFKC, decoded twice, without invisible characters, casefolded."""
    for _ in range(2):
        text = html.unescape(_TOO_LONG.sub("\ufffd", visible(unicodedata.normalize("NFKC", text))))
    return visible(unicodedata.normalize("NFKC", text)).casefold()


def find_tag(text: str) -> str | None:
    """The first tag that a normalizing reader finds."""
    found = _TAG.search(normalized(text))
    return found[0] if found else None
