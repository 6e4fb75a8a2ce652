"""Documents of corpora and search engines as passages in the trained format: the title line, then the text."""

from collections.abc import Mapping
from typing import Any

import httpx

from searchr1.loop.types import Passage
from searchr1.retrieval.received import is_safe_url
from searchr1.retrieval.text import clean_text

TEXT_FIELDS = ("contents", "title", "text", "url")
"""The fields that engines are asked for. ``contents`` is the whole passage; else it is ``title`` and ``text``."""
WHOLE_FIELDS = ("contents", "content")
"""Names of a field that holds a whole passage, title line and all."""
BODY_FIELDS = ("text", "passage", "body")
"""Names of a field that holds a passage's text, without the title beside it."""
ID_FIELDS = ("id", "_id", "docid", "doc_id")
"""Names of a field that identifies a passage: ours, BEIR's, those of TREC's corpora."""


def passage_of(document: Mapping[str, Any], id: str, score: float | None) -> Passage | None:
    """Return a stored document as a passage, or None if no field of its holds text."""
    contents = contents_of(document)
    if contents is None:
        return None
    return Passage.from_contents(contents, id=clean_text(id), url=url_of(document), score=score)


def contents_of(document: Mapping[str, Any]) -> str | None:
    """Return a document's title line and text, or None if no field of its holds text.

    >>> contents_of({"title": "Mali", "text": "A country."}), contents_of({"contents": "A country."})
    ('"Mali"\\nA country.', 'A country.')
    """
    if (whole := _first_text(document, WHOLE_FIELDS)) is not None:
        return clean_text(whole)
    if (text := _first_text(document, BODY_FIELDS)) is None:
        return None
    return f"{_title_line(document.get('title'))}\n{clean_text(text)}"


def url_of(document: Mapping[str, Any]) -> str | None:
    """Return the link in a document's ``url``, or in that of its ``metadata``, where it can be given to users."""
    metadata = document.get("metadata")
    url = document.get("url") or (metadata.get("url") if isinstance(metadata, dict) else None)
    if not isinstance(url, str):
        return None
    try:
        normal = str(httpx.URL(clean_text(url)))
    except httpx.InvalidURL:
        return None
    return normal if is_safe_url(normal) else None


def _first_text(document: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((value for name in names if isinstance(value := document.get(name), str)), None)


def is_title(title: object) -> bool:
    """Return whether a field holds a title: a text, or a number, as a year or a film may have."""
    return isinstance(title, str | int | float) and not isinstance(title, bool)


def _title_line(title: object) -> str:
    line = " ".join(clean_text(str(title)).split()) if is_title(title) else ""
    is_quoted = len(line) > 1 and line[0] == line[-1] == '"'
    return line if is_quoted else f'"{line}"'
