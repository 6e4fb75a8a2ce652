"""Runs as parquet rows: upstream's columns first, then the record's own.

The record's columns have the types of the wire models, so that a row is also a ``Trajectory``, field by field.
"""

from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, BinaryIO, Literal, Union, get_args, get_origin

import pyarrow as pa  # type: ignore[import-untyped]
from pydantic import BaseModel

from searchr1.data.golden import GoldenAnswers
from searchr1.data.upstream import ParquetRows, upstream_columns, upstream_values
from searchr1.errors import ConfigurationError
from searchr1.loop.neutralized import recorded_profile
from searchr1_client.events import Run, Trajectory, Usage, WireError

ROWS_PER_GROUP = 256
"""Runs that are held in memory before they are written."""

_SCALARS: dict[Any, Callable[[], Any]] = {int: pa.int64, float: pa.float64, str: pa.string, bool: pa.bool_}


def arrow_type(annotation: Any) -> Any:
    """Return the arrow type of a wire model's field: models are structs, lists are lists, None may stand anywhere.

    Raises:
        TypeError: no column can hold it.
    """
    if annotation in _SCALARS:
        return _SCALARS[annotation]()
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct([(name, arrow_type(field.annotation)) for name, field in annotation.model_fields.items()])
    origin, given = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return arrow_type(given[0])
    if origin is list:
        return pa.list_(arrow_type(given[0]))
    if origin is Literal:
        return pa.string() if isinstance(given[0], str) else pa.int8()
    inner = [kind for kind in given if kind is not type(None)]
    if origin in (Union, UnionType) and len(inner) == 1:
        return arrow_type(inner[0])
    raise TypeError(f"no parquet column can hold {annotation}")


def parquet_schema() -> Any:
    """Return all columns, as a ``pyarrow.Schema``; its metadata has the record's version."""
    trajectory = {name: arrow_type(field.annotation) for name, field in Trajectory.model_fields.items()}
    text, ids = pa.string(), pa.list_(pa.int64())
    upstream = upstream_columns() | {"question": trajectory.pop("question")}
    ours = {
        "created": pa.int64(),
        "model": text,
        "status": text,
        "answer": text,
        "error": arrow_type(WireError),
        "usage": arrow_type(Usage),
        "num_prompt_tokens": pa.int64(),
        "token_ids": ids,
        "loss_mask": pa.list_(pa.int8()),
        "sampled_ids": ids,
        "logprobs": pa.list_(pa.float64()),
    }
    return pa.schema(list({**upstream, **ours, **trajectory}.items()), metadata={"searchr1.schema_version": "1"})


class RunParquetWriter:
    """A ``Writer`` of runs as rows."""

    def __init__(self, file: BinaryIO, golden: GoldenAnswers, *, data_source: str, split: str) -> None:
        self._golden, self._data_source, self._split = golden, data_source, split
        self._rows = ParquetRows(file, parquet_schema(), ROWS_PER_GROUP)

    def write(self, run: Run) -> None:
        """See ``Writer.write``. Raises ``ConfigurationError`` for a run of a format that is not known here."""
        golden = self._golden.of(_trajectory(run).question)
        row = upstream_row(run, golden, data_source=self._data_source, split=self._split, index=self._rows.num_rows)
        self._rows.append(row | record_row(run))

    def close(self) -> None:
        """See ``Writer.close``."""
        self._rows.close()


def upstream_row(run: Run, golden: list[str], *, data_source: str, split: str, index: int) -> dict[str, Any]:
    """Return the columns that upstream reads. The prompt is chat messages, without the chat template around them.

    Raises:
        ConfigurationError: the run's profile is not known here.
    """
    trajectory = _trajectory(run)
    try:
        profile = recorded_profile(trajectory.profile)
    except ConfigurationError as error:
        named = f"run {run.id} has the profile {trajectory.profile!r}, whose prompt is not known here"
        raise ConfigurationError(named) from error
    row = upstream_values(
        run.id,
        trajectory.question,
        golden,
        data_source=data_source,
        prompt=profile.prompt(trajectory.question),
        split=split,
        index=index,
    )
    return row | {"prompt": profile.messages(trajectory.question)}


def record_row(run: Run) -> dict[str, Any]:
    """Return the record's own columns; the token columns are those of all segments, one after the other."""
    trajectory = _trajectory(run)
    segments = trajectory.segments
    sampled = [segment for segment in segments if segment.sampled_ids]
    logprobs = [segment.logprobs for segment in sampled]
    return run.model_dump(include={"created", "model", "status", "answer", "error", "usage"}) | {
        "num_prompt_tokens": sum(len(segment.token_ids) for segment in segments if segment.kind == "prompt"),
        "token_ids": [token for segment in segments for token in segment.token_ids],
        "loss_mask": [bit for segment in segments for bit in segment.loss_mask],
        "sampled_ids": [token for segment in sampled for token in segment.sampled_ids],
        "logprobs": None if not logprobs or None in logprobs else [x for part in logprobs for x in part or ()],
        **trajectory.model_dump(exclude={"question"}),
    }


def _trajectory(run: Run) -> Trajectory:
    assert run.trajectory is not None
    return run.trajectory
