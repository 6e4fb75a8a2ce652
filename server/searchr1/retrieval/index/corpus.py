"""A corpus on disk, read one passage at a time: JSON Lines or an array, packed or not, in the common shapes.

A passage has ``contents``, as upstream Search-R1 has it, or ``title`` and ``text``, as BEIR and others do. Without an
id it is called by its place, counted from 1.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchr1.errors import CorpusError
from searchr1.json_texts import json_texts
from searchr1.retrieval.documents import BODY_FIELDS, ID_FIELDS, WHOLE_FIELDS, contents_of, is_title, url_of
from searchr1.retrieval.text import clean_text

_SHAPE = '{"id", "contents"} or {"id", "title", "text"}'
_MAX_IGNORED = 20
"""Names of fields without a use that are remembered."""


@dataclass(frozen=True, slots=True)
class CorpusRecord:
    """One passage of a corpus. ``contents`` is the title line, then the text."""

    id: str
    contents: str
    url: str | None = None
    """A link that users can be given."""


class Corpus:
    """The records of the file ``path``, in its order."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> None:
        self.path, self.on_bytes = path, on_bytes
        """``on_bytes`` hears of the bytes of the file as they are read."""
        self.ignored: set[str] = set()
        """Names of fields that no record so far kept; some of them, where there are many."""

    @property
    def num_bytes(self) -> int | None:
        """Size of the file; None where there is none."""
        return self.path.stat().st_size if self.path.is_file() else None

    def __iter__(self) -> Iterator[CorpusRecord]:
        """Yield the records.

        Raises ``CorpusError``, naming file and place, for what is not UTF-8, not a JSON object, lacks text, has a
        field of the wrong type, or repeats an id; and for a file without records or one that cannot be read.
        """
        seen: set[str] = set()
        for number, (where, text) in enumerate(json_texts(self.path, CorpusError, self.on_bytes), start=1):
            record = self._record(_parse(text, where), where, number)
            if record.id in seen:
                raise CorpusError(f"{where}: the id {record.id!r} was used by an earlier passage; ids must be unique")
            seen.add(record.id)
            yield record
        if not seen:
            raise CorpusError(f"the corpus {self.path} is empty; expected one JSON object {_SHAPE} per line")

    def _record(self, value: dict[str, Any], where: str, number: int) -> CorpusRecord:
        contents = contents_of(value)
        if contents is None:
            raise CorpusError(f"{where}: {_no_text(value)}")
        identifier = _identifier(value, where) or str(number)
        if len(self.ignored) < _MAX_IGNORED:
            self.ignored |= value.keys() - _kept(value)
        return CorpusRecord(identifier, contents, url_of(value))


def read_corpus(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[CorpusRecord]:
    """Yield the records of ``path`` as ``Corpus`` does."""
    return iter(Corpus(path, on_bytes))


def _parse(text: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: not valid UTF-8 at byte {error.start} of the line") from error
    except ValueError as error:
        begins = text.strip()
        is_other = begins in (b"{", b"{}") or not begins.startswith((b"{", b"["))
        hint = f"; a corpus is one object {_SHAPE} a line, or an array of objects" if is_other else ""
        raise CorpusError(f"{where}: not valid JSON: {error}{hint}") from error
    except RecursionError as error:
        raise CorpusError(f"{where}: JSON nested too deeply") from error
    if not isinstance(value, dict):
        raise CorpusError(f"{where}: expected an object {_SHAPE}, got {type(value).__name__}")
    return value


def _identifier(value: dict[str, Any], where: str) -> str | None:
    name = next((name for name in ID_FIELDS if value.get(name) is not None), None)
    if name is None:
        return None
    identifier = value[name]
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        raise CorpusError(f'{where}: "{name}" must be a non-empty string or a whole number, got {identifier!r:.80}')
    return clean_text(identifier)


def _kept(value: dict[str, Any]) -> set[str]:
    """Return the fields of which a record keeps something."""
    text = next((name for name in (*WHOLE_FIELDS, *BODY_FIELDS) if isinstance(value.get(name), str)), "")
    kept = {*ID_FIELDS, text, "url"}
    if text in BODY_FIELDS and (value.get("title") is None or is_title(value["title"])):
        kept.add("title")
    if not isinstance(value.get("metadata"), dict) or value["metadata"].keys() <= {"url"}:
        kept.add("metadata")
    return kept


def _no_text(value: dict[str, Any]) -> str:
    for name in (*WHOLE_FIELDS, *BODY_FIELDS):
        if name in value:
            return f'"{name}" must be a string, got {type(value[name]).__name__}'
    has = f"; it has {', '.join(list(value)[:8])}" if value else ""
    return clean_text(f'the field "contents" is missing, and so is "text"{has}')
