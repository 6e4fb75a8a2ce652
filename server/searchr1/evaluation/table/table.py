"""Several evaluations in one table, laid out as the paper's: rows are methods, columns are sets, or numbers of hops."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from searchr1.data.sets import SETS, TITLES, set_named
from searchr1.errors import ConfigurationError
from searchr1.evaluation.methods.registry import SEARCH_R1, method_named
from searchr1.evaluation.records import Record, read_records
from searchr1.evaluation.report import wilson_interval
from searchr1.evaluation.table.paper import NOTE, PaperModel, PaperRow, paper_rows

Layout = Literal["sets", "hops"]
AVERAGE, ALL = "average", "all"
"""The last column: the plain mean over the sets, or all questions."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One method's scores on the questions of one column, as shares."""

    exact_match: float
    sub_exact_match: float | None = None
    """The looser score; None where only the paper's exact match is known."""
    num_questions: int | None = None
    interval: tuple[float, float] | None = None
    """Wilson's 95 % interval of the exact match."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method by one model. ``cells`` lacks the columns that it was not asked."""

    name: str
    method: str | None
    source: str
    """Model and sampling of a row of ours; ``NOTE`` of the paper's."""
    cells: dict[str, Cell]
    options: dict[str, Any]
    num_failed: int = 0
    """Runs that the system failed; they count as wrong."""

    @property
    def is_paper(self) -> bool:
        """True where the numbers are the paper's."""
        return self.source == NOTE


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """The table: what is printed, written and drawn."""

    layout: Layout
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    same_questions: bool
    """True where all rows of ours were asked the same questions."""

    @property
    def titles(self) -> tuple[str, ...]:
        """The columns' headings."""
        return tuple(TITLES.get(column, column.capitalize()) for column in self.columns)

    def to_json(self) -> str:
        """Return everything, for files."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """Return exact match, sub-exact match and notes."""
        parts = ["Exact match", _grid(self, "exact_match"), "Sub-exact match", _grid(self, "sub_exact_match")]
        return "\n\n".join([*parts, "\n".join(f"* {note}" for note in self.notes())]) + "\n"

    def notes(self) -> list[str]:
        """Return what a reader must know beside the numbers."""
        notes = [f"Questions: {_counts(self)}."]
        if self.layout == "sets":
            notes.append("The average is the plain mean over the sets of the row.")
        if any(row.is_paper for row in self.rows):
            notes.append(f'"{NOTE}": arXiv 2503.09516, read through a transcription; check a number before citing it.')
        if not self.same_questions:
            notes.append("The rows were not all asked the same questions, so they do not compare as they stand.")
        failed = [row for row in self.rows if row.num_failed]
        return notes + [f"{row.name} ({row.source}): {row.num_failed} failed runs count as wrong." for row in failed]


def table_of_files(paths: Sequence[Path], *, paper: PaperModel | None = None) -> ComparisonTable:
    """Return the table of results files, as ``searchr1 eval --out`` writes them.

    Records of one method, model and set of options are one row, from however many files.

    Raises:
        DatasetError: a file can't be read.
        ConfigurationError: two files answer the same question in the same way, or ``paper`` has no such columns.
    """
    return build_table([record for path in paths for record in read_records(path)], paper=paper)


def build_table(records: Sequence[Record], *, paper: PaperModel | None = None) -> ComparisonTable:
    """Return the table of at least one record; see ``table_of_files``."""
    layout: Layout = "sets" if any(_set_of(record) in SETS for record in records) else "hops"
    if paper is not None and layout == "hops":
        raise ConfigurationError("the paper has numbers for its seven sets alone; none of them is among the results")
    columns = (*SETS, AVERAGE) if layout == "sets" else (*_hop_columns(records), ALL)
    groups = _grouped(records)
    rows = [_row(group, layout, columns) for group in groups]
    if paper is not None:
        rows += [_paper_row(row) for row in paper_rows(paper)]
    asked = [{record.id for record in group} for group in groups]
    return ComparisonTable(
        layout, columns, tuple(_ordered(rows)), same_questions=all(ids == asked[0] for ids in asked[1:])
    )


def _grouped(records: Iterable[Record]) -> list[list[Record]]:
    groups: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda record: record.model is None):
        key = json.dumps([record.method, record.model, record.extractor, record.options], sort_keys=True)
        if record.model is None and record.failed:
            key = next((k for k, g in groups.items() if _alike(record, next(iter(g.values())))), key)
        group = groups.setdefault(key, {})
        if record.id in group:
            message = f"the question {record.id!r} was answered twice by {_name(record)}; leave one file out"
            raise ConfigurationError(message)
        group[record.id] = record
    return [list(group.values()) for group in groups.values()]


def _alike(failed: Record, other: Record) -> bool:
    """Return whether ``failed`` belongs with ``other``: a run that a gateway never answered names no model."""
    return (failed.method, failed.extractor, failed.options) == (other.method, other.extractor, other.options)


def _row(records: Sequence[Record], layout: Layout, columns: Sequence[str]) -> Row:
    cells: dict[str, Cell] = {}
    for column in columns[:-1]:
        if chosen := [record for record in records if _column_of(record, layout) == column]:
            cells[column] = _cell(chosen)
    if layout == "hops":
        cells[ALL] = _cell(records)
    elif cells:
        cells[AVERAGE] = _average(list(cells.values()))
    first = records[0]
    return Row(
        name=_name(first),
        method=first.method or SEARCH_R1,
        source=_source(first, next((record.model for record in records if record.model), None)),
        cells=cells,
        options=first.options,
        num_failed=sum(record.failed for record in records),
    )


def _name(record: Record) -> str:
    return method_named(record.method or SEARCH_R1).title


def _source(record: Record, model: str | None) -> str:
    options = record.options
    temperature = options.get("temperature")
    sampling = "greedy" if temperature == 0 else f"temperature {temperature}" if temperature is not None else "sampled"
    told = ("temperature", "model", "baseline_format")
    chosen = [f"{name} {value}" for name, value in options.items() if name not in told]
    if options.get("baseline_format") == "search-r1":
        chosen.append("in Search-R1's format")
    if record.extractor != "own":
        chosen.append(f"{record.extractor} extractor")
    return ", ".join([model or "unknown model", sampling, *chosen])


def _cell(records: Sequence[Record]) -> Cell:
    right = sum(record.exact_match for record in records)
    return Cell(
        exact_match=right / len(records),
        sub_exact_match=fmean(record.sub_exact_match for record in records),
        num_questions=len(records),
        interval=wilson_interval(right, len(records)),
    )


def _average(cells: Sequence[Cell]) -> Cell:
    return Cell(
        exact_match=fmean(cell.exact_match for cell in cells),
        sub_exact_match=fmean(cell.sub_exact_match or 0.0 for cell in cells),
        num_questions=sum(cell.num_questions or 0 for cell in cells),
    )


def _paper_row(row: PaperRow) -> Row:
    cells = {column: Cell(score) for column, score in row.exact_match.items()} | {AVERAGE: Cell(row.average)}
    return Row(row.name, row.method, NOTE, cells, options={})


def _ordered(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the paper's order, ours before the paper's; methods that we lack stand where it has them."""
    known = [row for row in rows if row.method is not None]
    ordered = sorted(known, key=lambda row: (method_named(row.method or SEARCH_R1).paper_row, row.is_paper))
    others = [row for row in rows if row.method is None]
    at = next((i for i, row in enumerate(ordered) if row.method == SEARCH_R1), len(ordered))
    return [*ordered[:at], *others, *ordered[at:]]


def _set_of(record: Record) -> str | None:
    return set_named(record.data_source) if record.data_source else None


def _column_of(record: Record, layout: Layout) -> str | None:
    return _set_of(record) if layout == "sets" else _hops(record)


def _hops(record: Record) -> str | None:
    return _hop_name(record.hops) if record.hops is not None else None


def _hop_columns(records: Sequence[Record]) -> list[str]:
    found = {record.hops for record in records if record.hops is not None}
    return [_hop_name(hops) for hops in sorted(found | {1, 2, 3})] if found else []


def _hop_name(hops: int) -> str:
    return f"{hops} hop" if hops == 1 else f"{hops} hops"


def _grid(table: ComparisonTable, score: str) -> str:
    rows = [row for row in table.rows if score == "exact_match" or not row.is_paper]
    head = ["Method", "Source", *table.titles]
    lines = [head, ["---", "---", *["--:"] * len(table.columns)]]
    lines += [[row.name, _plain(row.source), *(_shown(row, column, score) for column in table.columns)] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(text: str) -> str:
    return text.replace("|", "\\|")


def _shown(row: Row, column: str, score: str) -> str:
    cell = row.cells.get(column)
    value = getattr(cell, score) if cell is not None else None
    return f"{value:.3f}" if value is not None else "–"


def _counts(table: ComparisonTable) -> str:
    parts: list[str] = []
    for column, title in zip(table.columns, table.titles, strict=True):
        if column == AVERAGE:
            continue
        counts = {cell.num_questions for row in table.rows if (cell := row.cells.get(column)) and cell.num_questions}
        if counts:
            parts.append(f"{title} {' or '.join(f'{count:,}' for count in sorted(c for c in counts if c))}")
    return ", ".join(parts)
