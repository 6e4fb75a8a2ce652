"""Cleaning of text that came from outside, so that it can be sent on."""

import re

_UNSAFE = re.compile("[\x00\ud800-\udfff]")


def clean_text(text: str) -> str:
    """Replace NULs and lone surrogates, which JSON encoders, databases and tokenizers refuse, by U+FFFD."""
    if text.isascii() and "\x00" not in text:  # a hundred times as fast as the search below
        return text
    return _UNSAFE.sub("\ufffd", text)


def cut_at_word(text: str, max_chars: int) -> str:
    """Return the first words of ``text`` that fit into ``max_chars``, or a part of the first where it does not."""
    if len(text) <= max_chars:
        return text
    return text[:max_chars].rpartition(" ")[0] or text[:max_chars]
