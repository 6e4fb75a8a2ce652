"""A table in files."""

from pathlib import Path

from searchr1.evaluation.table.plot import plot_table
from searchr1.evaluation.table.table import ComparisonTable
from searchr1.files import whole_file


def write_table(table: ComparisonTable, out: Path, *, plot: bool = False) -> None:
    """Write Markdown to ``out``, JSON beside it (``.json``) and, with ``plot``, a picture (``.png``).

    Raises ``ConfigurationError`` where a file can't be written or matplotlib is missing.
    """
    for path, text in ((out, table.to_markdown()), (out.with_suffix(".json"), table.to_json())):
        with whole_file(path) as file:
            file.write(text.encode())
    if plot:
        with whole_file(out.with_suffix(".png")) as file:
            plot_table(table, file)
