"""Readers of questions: JSON Lines (ours, FlashRAG's, exported runs) and parquet (upstream's columns), row by row."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from searchr1.data.questions import Question, Text
from searchr1.data.sets import set_named
from searchr1.data.sources import SourceFile
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.files import first_problem, read_json_lines

if TYPE_CHECKING:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

PARQUET = ".parquet"
ROWS_PER_BATCH = 1024
"""Rows of a parquet file that are in memory at a time."""

_RUN = "research.run"


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


def read(file: SourceFile) -> Iterator[tuple[str, Question]]:
    """Yield the questions of a file in its order, each with the place where it stands, for messages.

    Of an exported run the golden answers are those of its row, which may be none; all others have at least one.

    Raises:
        DatasetError: the file can't be read or a row is malformed; file and row are named.
        ConfigurationError: it is parquet, and pyarrow is not installed.
    """
    rows = _parquet_rows(file.path) if file.path.suffix == PARQUET else _json_rows(file.path)
    for where, row in rows:
        data_source = file.data_source if row.data_source is None else set_named(row.data_source) or row.data_source
        if file.only is None or data_source in file.only:
            yield where, Question(row.id, row.question, row.golden_answers or (), row.hops, row.kind, data_source)


def num_rows(path: Path) -> int | None:
    """Return the number of rows of a parquet file; None of any other, which would have to be read for it."""
    return int(_open(path).metadata.num_rows) if path.suffix == PARQUET else None


def _json_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    for where, row in read_json_lines(path, _ROW):
        if row.golden_answers is None and row.object != _RUN:
            raise DatasetError(f"{where}: 'golden_answers': Field required")
        if row.object == _RUN and row.trajectory is not None:
            row = replace(row, question=row.trajectory.question)
        yield where, row


def _parquet_rows(path: Path) -> Iterator[tuple[str, _Row]]:
    import pyarrow as pa

    file = _open(path)
    columns = _columns(path, file.schema_arrow.names)
    number = 0
    try:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=columns):
            for values in batch.to_pylist():
                number += 1
                where = f"{path}, row {number}"
                yield where, _parse(values, where)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read after row {number}: {error}") from error


def _open(path: Path) -> "pq.ParquetFile":
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigurationError(f"{path} is parquet, which needs pyarrow: pip install 'searchr1[data]'") from error
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} cannot be read as parquet: {error}") from error


def _columns(path: Path, names: list[str]) -> list[str]:
    """Return the columns to read."""
    for needed in ("id", "question"):
        if needed not in names:
            raise DatasetError(f"{path} has no column '{needed}'; it has {', '.join(names)}")
    if "golden_answers" not in names and "reward_model" not in names:
        raise DatasetError(f"{path} has neither a column 'golden_answers' nor 'reward_model'")
    answers = "golden_answers" if "golden_answers" in names else "reward_model"
    return ["id", "question", answers, *(name for name in ("data_source", "hops", "kind") if name in names)]


def _parse(values: dict[str, Any], where: str) -> _Row:
    """Return a row of upstream's columns. One of an exported run may have no golden answers."""
    if "reward_model" in values:
        values["golden_answers"] = _target(values.pop("reward_model"))
    values["golden_answers"] = values["golden_answers"] or None
    try:
        return _ROW.validate_python(values)
    except ValidationError as error:
        raise DatasetError(f"{where}: {first_problem(error)}") from error


def _target(reward_model: Any) -> Any:
    """Return the golden answers in ``reward_model.ground_truth.target``; another shape is left to validation."""
    truth = reward_model.get("ground_truth") if isinstance(reward_model, dict) else reward_model
    return truth.get("target") if isinstance(truth, dict) else truth
