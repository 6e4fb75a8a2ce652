"""A table in files."""

from pathlib import Path

from searchr1.errors import ConfigurationError
from searchr1.evaluation.table.plot import plot_table
from searchr1.evaluation.table.table import ComparisonTable


def write_table(table: ComparisonTable, out: Path, *, plot: bool = False) -> None:
    """Write Markdown to ``out``, JSON beside it (``.json``) and, with ``plot``, a picture (``.png``).

    Raises ``ConfigurationError`` where a file can't be written or matplotlib is missing.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(table.to_markdown(), encoding="utf-8")
        out.with_suffix(".json").write_text(table.to_json(), encoding="utf-8")
        if plot:
            plot_table(table, out.with_suffix(".png"))
    except OSError as error:
        raise ConfigurationError(f"the table cannot be written to {out}: {error.strerror}") from error
