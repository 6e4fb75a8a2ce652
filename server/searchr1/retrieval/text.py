"""Cleaning of text that came from outside, so that it can be sent on."""

import re

_UNSAFE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace NULs and lone surrogates, which JSON encoders, databases and tokenizers refuse, by U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)
