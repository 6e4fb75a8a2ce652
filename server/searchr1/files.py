"""Files: written whole or not at all, and JSON lines read with errors that name the line."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedWriter, FileIO, RawIOBase
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

from searchr1.errors import ConfigurationError, DatasetError
from searchr1.json_texts import json_texts

T = TypeVar("T")


def check_output(path: Path, *, replace: bool) -> None:
    """Raise ``ConfigurationError`` where ``path`` is taken, and may not be replaced."""
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder; give a file")
    if path.exists() and not replace:
        raise ConfigurationError(f"{path} exists. Give --overwrite to replace it, or another --output")


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[BinaryIO]:
    """Yield a file to write that takes the place of ``path`` when the block ends well, and vanishes when it does not.

    It has the permissions ``mode``, less what the process takes from every new file.

    Raises:
        ConfigurationError: it can't be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            raw = FileIO(part, "wb", opener=partial(os.open, mode=mode))
        # Only what the disk says of this file is told of it: the block has errors of its own.
        with _Guarded(raw, path) as file:
            yield cast(BinaryIO, file)
            file.flush()
            with _writing(path):
                os.fsync(raw.fileno())
        with _writing(path):
            part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from error


class _Guarded(BufferedWriter):
    """A buffered file whose disk's errors name ``path``, as ``ConfigurationError``."""

    def __init__(self, raw: RawIOBase, path: Path) -> None:
        super().__init__(raw)
        self._path = path

    def write(self, data: Any, /) -> int:
        with _writing(self._path):
            return super().write(data)

    def flush(self) -> None:
        with _writing(self._path):
            super().flush()

    def close(self) -> None:
        with _writing(self._path):
            super().close()


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


class BadLines:
    """The answer to malformed lines of a file: the first one ends the command, or all are left out and counted."""

    def __init__(self, *, skip: bool) -> None:
        self.num_skipped = 0
        self._skip, self._first = skip, ""

    def __call__(self, error: DatasetError) -> None:
        """Take a malformed line. Raises ``DatasetError``, with a hint, unless lines are skipped."""
        if not self._skip:
            raise DatasetError(f"{error}. To leave out what is malformed: --skip-bad") from error
        self.num_skipped += 1
        self._first = self._first or str(error)

    def __str__(self) -> str:
        return f"{self.num_skipped:,} malformed, the first: {self._first}" if self.num_skipped else ""


def refused(error: DatasetError) -> None:
    """Raise ``error``: the answer to a malformed line where nothing else was chosen."""
    raise error


def read_json_lines(
    path: Path, kind: TypeAdapter[T], on_bad: Callable[[DatasetError], None] = refused
) -> Iterator[tuple[str, T]]:
    """Yield where each value of a file of JSON stands, for messages, and the value; see ``json_texts`` for its forms.

    ``on_bad`` hears of a malformed value, which is left out unless it raises.

    Raises:
        DatasetError: the file can't be read, or a value is malformed; file and line are named.
    """
    for where, text in json_texts(path, DatasetError):
        try:
            value = _parse(text, kind, where)
        except DatasetError as error:
            on_bad(error)
        else:
            yield where, value


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
