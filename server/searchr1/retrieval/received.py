"""The last check of passages, whoever found them, before the rest of the program handles and shows them."""

import re
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, Retriever, SearchOutcome
from searchr1.retrieval.text import clean_text, cut_at_word

MAX_TITLE_CHARS = 1000
"""Characters of a title, and of an id."""
MAX_URL_CHARS = 2048
_NEVER_IN_URLS = re.compile(r'[\x00-\x20\x7f-\xa0\\<>"`\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffd]')


def received(passages: Sequence[Passage]) -> tuple[Passage, ...]:
    """Return the passages without NULs, lone surrogates and unsafe URLs; those that had none are the same objects.

    A URL stays if it is http or https, names a host and holds no credentials. It is shown to users, never fetched.
    """
    return tuple(map(_received, passages))


def _received(passage: Passage) -> Passage:
    cleaned = replace(
        passage,
        id=clean_text(passage.id),
        title=clean_text(passage.title),
        text=clean_text(passage.text),
        url=passage.url if passage.url is not None and is_safe_url(passage.url) else None,
    )
    return passage if cleaned == passage else cleaned


def shortened(passage: Passage, max_chars: int) -> Passage:
    """Return the passage with at most ``max_chars`` of its text; the same object where it is that short."""
    if len(passage.text) <= max_chars and max(len(passage.title), len(passage.id)) <= MAX_TITLE_CHARS:
        return passage
    return replace(
        passage,
        id=passage.id[:MAX_TITLE_CHARS],
        title=cut_at_word(passage.title, MAX_TITLE_CHARS),
        text=cut_at_word(passage.text, max_chars),
    )


class ShortenedRetriever:
    """A ``Retriever`` that keeps ``max_chars`` of each passage of ``inner``, before anything is done with the rest."""

    def __init__(self, inner: Retriever, max_chars: int) -> None:
        self._inner, self._max_chars = inner, max_chars

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        outcome = await self._inner.search(query, k, deadline_s)
        if not isinstance(outcome, Found):
            return outcome
        return replace(outcome, passages=tuple(shortened(one, self._max_chars) for one in outcome.passages))


def is_safe_url(url: str) -> bool:
    """Tell whether a link to ``url`` can be given to users."""
    if len(url) > MAX_URL_CHARS or _NEVER_IN_URLS.search(url):
        return False
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname)
    except ValueError:  # brackets without an IPv6 address
        return False
    return parts.scheme in ("http", "https") and has_host and "@" not in parts.netloc
