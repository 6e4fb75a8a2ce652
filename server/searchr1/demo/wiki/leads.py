"""Leads of Wikipedia's articles, their first paragraphs, as a corpus."""

from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from searchr1.errors import CorpusError
from searchr1.files import first_problem, write_json_lines


class _Lead(BaseModel):
    """What the package says of an article. It also has a description and a topic, which are not Wikipedia's text."""

    title: str
    extract: str


_LEADS = TypeAdapter(dict[str, _Lead])


def passages(file: IO[bytes], name: str) -> Iterator[dict[str, Any]]:
    """Yield a passage, ``{"id", "title", "text"}``, for each article in ``file``, which messages call ``name``.

    Raises:
        CorpusError: the file holds something else than articles by their titles.
    """
    try:
        leads = _LEADS.validate_json(file.read())
    except ValidationError as error:
        raise CorpusError(f"{name} holds no leads of articles: {first_problem(error)}") from error
    for number, lead in enumerate(leads.values()):
        if text := " ".join(lead.extract.split()):
            yield {"id": str(number), "title": lead.title, "text": text}


def write_corpus(file: IO[bytes], name: str, out: Path) -> int:
    """Write the passages of ``file`` to ``out``, one JSON object a line, and return their number.

    Raises:
        CorpusError: as ``passages``, or there is none.
        ConfigurationError: ``out`` can't be written.
    """
    count = write_json_lines(out, passages(file, name))
    if count == 0:
        raise CorpusError(f"{name} holds no article")
    return count
