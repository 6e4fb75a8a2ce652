"""A corpus on disk: JSON Lines of ``{"id", "contents"}``, as upstream Search-R1 has it, read one line at a time."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from searchr1.errors import CorpusError
from searchr1.retrieval.text import clean_text

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class CorpusRecord:
    """One passage of a corpus. ``contents`` is the title line, then the text."""

    id: str
    contents: str


def read_corpus(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Iterator[CorpusRecord]:
    """Yield the records of ``path`` in file order; blank lines are skipped, fields besides the two are ignored.

    ``on_bytes`` hears the length of every line read. Raises ``CorpusError``, naming file and line, for what is not
    UTF-8, not a JSON object, lacks a field, has one of the wrong type, or repeats an id; and for a file without
    records or one that cannot be read.
    """
    seen: set[str] = set()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                on_bytes(len(line))
                if not line.removeprefix(_BOM).strip():
                    continue
                where = f"{path}, line {number}"
                record = _parse(line.removeprefix(_BOM) if number == 1 else line, where)
                if record.id in seen:
                    raise CorpusError(f"{where}: the id {record.id!r} was used by an earlier line; ids must be unique")
                seen.add(record.id)
                yield record
    except OSError as error:
        raise CorpusError(f"the corpus {path} cannot be read: {error.strerror or error}") from error
    if not seen:
        raise CorpusError(f'the corpus {path} is empty; expected one JSON object {{"id", "contents"}} per line')


def _parse(line: bytes, where: str) -> CorpusRecord:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(f"{where}: not valid UTF-8 at byte {error.start} of the line") from error
    except ValueError as error:
        raise CorpusError(f"{where}: not valid JSON: {error}") from error
    except RecursionError as error:
        raise CorpusError(f"{where}: JSON nested too deeply") from error
    if not isinstance(value, dict):
        raise CorpusError(f'{where}: expected an object {{"id", "contents"}}, got {type(value).__name__}')
    for name in ("id", "contents"):
        if name not in value:
            raise CorpusError(f'{where}: the field "{name}" is missing')
    identifier, contents = value["id"], value["contents"]
    if isinstance(identifier, int) and not isinstance(identifier, bool):
        identifier = str(identifier)
    if not isinstance(identifier, str) or not identifier:
        raise CorpusError(f'{where}: "id" must be a non-empty string or a whole number, got {identifier!r:.80}')
    if not isinstance(contents, str):
        raise CorpusError(f'{where}: "contents" must be a string, got {type(contents).__name__}')
    return CorpusRecord(clean_text(identifier), clean_text(contents))
