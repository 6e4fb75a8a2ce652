"""Questions with golden answers, as JSON Lines: ``{"id", "question", "golden_answers", "hops"?, "kind"?}``."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from searchr1.errors import DatasetError

DATA_DIR = Path("data")
BUNDLED = "atlas"

_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


@dataclass(frozen=True, slots=True)
class Question:
    """One question; any of its golden answers is right."""

    id: _Text
    question: _Text
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)]
    hops: int | None = None
    """Facts that must be combined to answer it."""
    kind: str | None = None
    """A name for the chain of relations it asks for."""


_QUESTION = TypeAdapter(Question)


def dataset_path(dataset: str, *, split: str = "test", data_dir: Path = DATA_DIR) -> Path:
    """The file of a dataset: ``atlas`` is the bundled world's ``split``, anything else is itself a path."""
    return data_dir / BUNDLED / f"questions-{split}.jsonl" if dataset == BUNDLED else Path(dataset)


def load_questions(
    dataset: str, *, split: str = "test", limit: int | None = None, data_dir: Path = DATA_DIR
) -> tuple[Question, ...]:
    """The first ``limit`` questions of a dataset, or all; ids are unique.

    Raises:
        DatasetError: the file is missing, empty or malformed; file and line are named.
    """
    path = dataset_path(dataset, split=split, data_dir=data_dir)
    questions: dict[str, Question] = {}
    try:
        with path.open("rb") as lines:
            numbered = ((number, line) for number, line in enumerate(lines, start=1) if line.strip())
            for number, line in islice(numbered, limit):
                question = _parse(line, f"{path}, line {number}")
                if question.id in questions:
                    raise DatasetError(f"{path}, line {number}: the id {question.id!r} is taken by an earlier line")
                questions[question.id] = question
    except FileNotFoundError as error:
        raise DatasetError(_missing(dataset, path)) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    if not questions:
        raise DatasetError(f"{path} holds no questions")
    return tuple(questions.values())


def _parse(line: bytes, where: str) -> Question:
    try:
        return _QUESTION.validate_json(line)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))
    return f"'{field}': {problem['msg']}" if field else problem["msg"]


def _missing(dataset: str, path: Path) -> str:
    if dataset == BUNDLED:
        return f"{path} does not exist. Write the Atlas world with: searchr1 demo build"
    return f"{path} does not exist. Give '{BUNDLED}' or the path of a JSON Lines file of questions"
