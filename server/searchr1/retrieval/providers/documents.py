"""Documents of search engines as passages in the trained format: the title line in double quotes, then the text."""

from collections.abc import Mapping
from typing import Any

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.received import is_safe_url
from searchr1.retrieval.text import clean_text

TEXT_FIELDS = ("contents", "title", "text", "url")
"""The fields that are read. ``contents`` is the whole passage; else it is put together from ``title`` and ``text``."""


def passage_of(document: Mapping[str, Any], id: str, score: float | None) -> Passage | None:
    """Return a stored document as a passage, or None if it has neither ``contents`` nor ``text`` as a string."""
    url = _safe_url(document.get("url"))
    contents, title, text = (document.get(name) for name in TEXT_FIELDS[:3])
    if isinstance(contents, str):
        return Passage.from_contents(clean_text(contents), id=clean_text(id), url=url, score=score)
    if not isinstance(text, str):
        return None
    return Passage(clean_text(id), _title_line(title), clean_text(text), url, score)


def _title_line(title: object) -> str:
    line = " ".join(clean_text(title).split()) if isinstance(title, str) else ""
    is_quoted = len(line) > 1 and line[0] == line[-1] == '"'
    return line if is_quoted else f'"{line}"'


def _safe_url(url: object) -> str | None:
    """Keep http(s) URLs without credentials; they are shown to users, and never fetched."""
    if not isinstance(url, str):
        return None
    try:
        normal = str(httpx.URL(clean_text(url)))
    except httpx.InvalidURL:
        return None
    return normal if is_safe_url(normal) else None
