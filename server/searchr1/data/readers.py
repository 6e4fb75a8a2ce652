"""Readers of questions: JSON (lines or an array, packed or not) and parquet, row by row, as ``rows.py`` knows them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from searchr1.data.questions import Question, Text
from searchr1.data.rows import ANSWER_COLUMNS, COLUMNS, QUESTION_COLUMNS, RUN, row_values
from searchr1.data.sets import set_named
from searchr1.data.sources import SourceFile
from searchr1.errors import ConfigurationError, DatasetError, missing_package
from searchr1.files import first_problem, refused
from searchr1.json_texts import is_parquet, json_texts

if TYPE_CHECKING:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

ROWS_PER_BATCH = 1024
"""Rows of a parquet file that are in memory at a time."""


@dataclass(frozen=True, slots=True)
class _Trajectory:
    """The part of an exported run's record that is read."""

    question: Text


@dataclass(frozen=True, slots=True)
class _Row:
    """The part of a row that is read, whatever else it holds."""

    id: Annotated[Text, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]
    question: Text
    golden_answers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    hops: int | None = None
    kind: str | None = None
    data_source: str | None = None
    object: str | None = None
    """``research.run`` marks an exported run, which knows no golden answers."""
    trajectory: _Trajectory | None = None
    """An exported run's record. Its question is what the model was asked: a follow-up, with what came before it."""


_ROW = TypeAdapter(_Row)


def read(file: SourceFile, on_bad: Callable[[DatasetError], None] = refused) -> Iterator[tuple[str, Question]]:
    """Yield the questions of a file in its order, each with the place where it stands, for messages.

    Golden answers may be none: those of an exported run, and those that a row lacks. ``on_bad`` hears of a malformed
    row, which is left out unless it raises.

    Raises:
        DatasetError: the file can't be read or a row is malformed; file and row are named.
        ConfigurationError: it is parquet, and pyarrow is not installed.
    """
    name = file.path.name.split(".")[0]
    rows = _parquet_rows(file.path) if is_parquet(file.path) else _json_rows(file.path)
    for number, (where, values) in enumerate(rows, start=1):
        try:
            row = _parse(values, where, f"{name}_{number}")
        except DatasetError as error:
            on_bad(error)
            continue
        data_source = file.data_source if row.data_source is None else set_named(row.data_source) or row.data_source
        if file.only is None or data_source in file.only:
            yield where, Question(row.id, row.question, row.golden_answers or (), row.hops, row.kind, data_source)


def num_rows(path: Path) -> int | None:
    """Return the number of rows of a parquet file; None of any other, which would have to be read for it."""
    return int(_open(path).metadata.num_rows) if is_parquet(path) else None


def _json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    for where, text in json_texts(path, DatasetError):
        try:
            yield where, json.loads(text)
        except (ValueError, RecursionError) as error:
            yield where, DatasetError(f"{where}: Invalid JSON: {error}")


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa

    file = _open(path)
    columns = _columns(path, file.schema_arrow)
    number = 0
    try:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
            for values in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", values
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read after row {number}: {error}") from error


def _open(path: Path) -> "pq.ParquetFile":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(missing_package(f"{path} is parquet, which", "pyarrow", "data")) from error
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def _columns(path: Path, schema: "pa.Schema") -> list[str]:
    """Return the columns to read: a prompt, which is long, only where nothing else tells the question."""
    names = schema.names
    if not any(name in names for name in QUESTION_COLUMNS):
        raise DatasetError(f"{path} has no column 'question'; it has {', '.join(names)}")
    if not any(name in names for name in ANSWER_COLUMNS):
        raise DatasetError(f"{path} has neither a column 'golden_answers' nor 'reward_model'")
    has_question = any(name in names for name in ("question", "query")) or (
        "extra_info" in names and schema.field("extra_info").type.get_field_index("question") >= 0
    )
    return [name for name in COLUMNS if name in names and not (has_question and name == "prompt")]


def _parse(values: Any, where: str, place: str) -> _Row:
    """Return a row; ``place`` is its id where it has none."""
    if isinstance(values, DatasetError):
        raise values
    if not isinstance(values, dict):
        raise DatasetError(f"{where}: expected an object of a question and its answers, got {type(values).__name__}")
    try:
        row = _ROW.validate_python(row_values(values, place=place))
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error
    if row.object == RUN and row.trajectory is not None:
        return replace(row, question=row.trajectory.question)
    return row
