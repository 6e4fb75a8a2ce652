"""Reading JSON Lines, with errors that name the line."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from searchr1.errors import DatasetError

T = TypeVar("T")


def read_lines(path: Path, kind: TypeAdapter[T]) -> Iterator[tuple[str, T]]:
    """Each line that is not blank: where it stands, for messages, and its value. One line at a time is in memory.

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
    """The first thing that is wrong, in one line."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    return f"'{field}': {problem['msg']}" if field else problem["msg"]


def _parse(line: bytes, kind: TypeAdapter[T], where: str) -> T:
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error
