"""Upstream's parquet columns: ``scripts/data_process/nq_search.py`` of Search-R1 and its published files.

verl reads them as well: ``prompt`` is what the policy is asked, ``reward_model.ground_truth.target`` what it is
scored by, and ``data_source`` picks the reward.
"""

from collections.abc import Sequence
from typing import Any, BinaryIO

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from searchr1.data.questions import Question, asked
from searchr1.data.sets import VERL_PREFIX
from searchr1.loop.profiles.search_r1 import SEARCH_R1

ABILITY = "fact-reasoning"
STYLE = "rule"
ROWS_PER_GROUP = 4096
"""Questions held in memory before they are written."""


def upstream_columns() -> dict[str, Any]:
    """Return the arrow type of each column, in upstream's order."""
    text, texts = pa.string(), pa.list_(pa.string())
    return {
        "id": text,
        "question": text,
        "golden_answers": texts,
        "data_source": text,
        "prompt": pa.list_(pa.struct([("role", text), ("content", text)])),
        "ability": text,
        "reward_model": pa.struct([("style", text), ("ground_truth", pa.struct([("target", texts)]))]),
        "extra_info": pa.struct([("split", text), ("index", pa.int64())]),
    }


def upstream_values(
    id: str,
    question: str,
    golden_answers: Sequence[str],
    *,
    data_source: str,
    prompt: str,
    split: str,
    index: int,
) -> dict[str, Any]:
    """Return a row. ``prompt`` is the user message, without the chat template around it."""
    golden = list(golden_answers)
    return {
        "id": id,
        "question": question,
        "golden_answers": golden,
        "data_source": data_source,
        "prompt": [{"role": "user", "content": prompt}],
        "ability": ABILITY,
        "reward_model": {"style": STYLE, "ground_truth": {"target": golden}},
        "extra_info": {"split": split, "index": index},
    }


class ParquetRows:
    """Rows of a parquet file, written in groups of ``group_size``, so that memory does not grow with their number."""

    def __init__(self, file: BinaryIO, schema: Any, group_size: int) -> None:
        self.num_rows = 0
        self._schema, self._group_size = schema, group_size
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._pending: list[dict[str, Any]] = []

    def append(self, row: dict[str, Any]) -> None:
        """Add a row, by column."""
        self._pending.append(row)
        self.num_rows += 1
        if len(self._pending) == self._group_size:
            self._flush()

    def close(self) -> None:
        """Write what is pending. The file itself stays open."""
        if self._pending:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending.clear()


class QuestionParquetWriter:
    """A writer of questions as upstream's rows.

    ``verl`` spells data sources as verl's own reward does: ``searchR1_nq``.
    """

    def __init__(self, file: BinaryIO, *, split: str, verl: bool = False) -> None:
        self._prefix = VERL_PREFIX if verl else ""
        self._split = split
        self._rows = ParquetRows(file, pa.schema(list(upstream_columns().items())), ROWS_PER_GROUP)

    def write(self, question: Question) -> None:
        """Add a question that has a data source. ``extra_info.index`` is its place in the file."""
        assert question.data_source is not None
        self._rows.append(
            upstream_values(
                question.id,
                asked(question.question),
                question.golden_answers,
                data_source=self._prefix + question.data_source,
                prompt=SEARCH_R1.prompt(question.question),
                split=self._split,
                index=self._rows.num_rows,
            )
        )

    def close(self) -> None:
        """Write what is pending. The file itself stays open."""
        self._rows.close()
