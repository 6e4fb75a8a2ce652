"""Files: written whole or not at all, and JSON lines read with errors that name the line."""

import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import TypeAdapter, ValidationError

from searchr1.errors import ConfigurationError, DatasetError

T = TypeVar("T")


def check_output(path: Path, *, replace: bool) -> None:
    """Raise ``ConfigurationError`` where ``path`` is taken, and may not be replaced."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; give a file")
    if path.exists() and not replace:
        raise ConfigurationError(f"{path} exists. Give --force to replace it, or another --output")


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Yield a file to write that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    Raises:
        ConfigurationError: it can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to fill that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    The caller decides whether a ``path`` that exists may be replaced, and words the ``OSError`` of a disk that refuses.
    """
    part, aside = (path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{end}") for end in ("part", "old"))
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(aside)
        part.rename(path)
        if aside.exists():
            shutil.rmtree(aside)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write ``rows`` to ``path``, one JSON object a line, whole or not at all; return their number.

    Raises:
        ConfigurationError: it can't be written.
    """
    count = 0
    with whole_file(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            count += 1
    return count


def read_json_lines(path: Path, kind: TypeAdapter[T]) -> Iterator[tuple[str, T]]:
    """Yield where each line stands, for messages, and its value. Blank lines are skipped; one at a time is in memory.

    Raises:
        DatasetError: the file can't be read, or a line is malformed; file and line are named.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    where = f"{path}, line {number}"
                    yield where, _parse(line, kind, where)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong, in one line."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    return f"'{field}': {problem['msg']}" if field else problem["msg"]


def _parse(line: bytes, kind: TypeAdapter[T], where: str) -> T:
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error
