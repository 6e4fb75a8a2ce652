"""Reading JSON Lines: runs that were exported or saved earlier, and golden answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from searchr1.errors import DatasetError
from searchr1.evaluation.datasets import first_problem
from searchr1_client.events import Run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Golden:
    """A question's right answers; more fields in its line do no harm."""

    question: str
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)]


_RUN = TypeAdapter(Run)
_GOLDEN = TypeAdapter(Golden)


def read_runs(path: Path) -> Iterator[Run]:
    """The runs of a file, one a line, in its order.

    Raises:
        DatasetError: the file can't be read, or a line is no run; file and line are named.
    """
    return _read(path, _RUN)


class GoldenAnswers:
    """Right answers by question. A question that stands in several lines has all of their answers."""

    def __init__(self, path: Path | None) -> None:
        """Read ``path``; None knows no answers. Raises ``DatasetError`` as ``read_runs`` does."""
        self.num_known = 0
        """Questions asked for whose answers are known."""
        self._answers: dict[str, tuple[str, ...]] = {}
        for line in () if path is None else _read(path, _GOLDEN):
            known = self._answers.get(asked(line.question), ())
            self._answers[asked(line.question)] = tuple(dict.fromkeys([*known, *line.golden_answers]))

    def of(self, question: str) -> list[str]:
        """The answers to ``question``; none where they are not known."""
        answers = self._answers.get(asked(question), ())
        self.num_known += bool(answers)
        return list(answers)


def asked(question: str) -> str:
    """A question as upstream's data has it: stripped, with a question mark at its end."""
    question = question.strip()
    return question if question.endswith("?") else f"{question}?"


def _read(path: Path, kind: TypeAdapter[T]) -> Iterator[T]:
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _parse(line, kind, f"{path}, line {number}")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error


def _parse(line: bytes, kind: TypeAdapter[T], where: str) -> T:
    try:
        return kind.validate_json(line)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error
