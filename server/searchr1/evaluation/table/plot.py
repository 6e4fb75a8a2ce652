"""The table as a picture: for each column a group of bars, one bar a method."""

from typing import Any, BinaryIO

from searchr1.errors import ConfigurationError, missing_package
from searchr1.evaluation.table.table import ComparisonTable, Row


def check_plotting() -> None:
    """Raise ``ConfigurationError`` where matplotlib is not installed."""
    _pyplot()


def plot_table(table: ComparisonTable, file: BinaryIO) -> None:
    """Draw the exact match of every row as a PNG, with Wilson's 95 % intervals where the questions are known.

    The paper's rows are hatched. Raises ``ConfigurationError`` where matplotlib is not installed.
    """
    pyplot = _pyplot()
    columns, rows = table.columns, table.rows
    figure, axes = pyplot.subplots(figsize=(max(6.0, 1.6 * len(columns)), 4.8 + 0.2 * len(rows)))
    try:
        width = 0.85 / len(rows)
        colors = pyplot.get_cmap("tab10" if len(rows) <= 10 else "tab20").colors
        for number, row in enumerate(rows):
            offset = (number - (len(rows) - 1) / 2) * width
            _bars(axes, table, row, offset, width, colors[number % len(colors)])
        axes.set_xticks(range(len(columns)), table.titles)
        axes.set_ylim(0, 1)
        axes.set_ylabel("exact match")
        axes.grid(axis="y", linewidth=0.4)
        axes.set_axisbelow(True)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize="small", ncols=1)
        figure.savefig(file, format="png", dpi=110, bbox_inches="tight")
    finally:
        pyplot.close(figure)


def _bars(axes: Any, table: ComparisonTable, row: Row, offset: float, width: float, color: Any) -> None:
    cells = [(place, cell) for place, column in enumerate(table.columns) if (cell := row.cells.get(column))]
    scores = [cell.exact_match for _, cell in cells]
    spans = [cell.interval or (cell.exact_match, cell.exact_match) for _, cell in cells]
    below = [score - low for score, (low, _) in zip(scores, spans, strict=True)]
    above = [high - score for score, (_, high) in zip(scores, spans, strict=True)]
    axes.bar(
        [place + offset for place, _ in cells],
        scores,
        width,
        color=color,
        label=f"{row.name} ({row.source})",
        hatch="///" if row.is_paper else None,
        yerr=None if row.is_paper else [below, above],
        error_kw={"linewidth": 0.8, "alpha": 0.7},
    )


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise ConfigurationError(
            missing_package("the plot", "matplotlib", "train") + ". Or leave --plot out"
        ) from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
