"""Pictures of the table: the averages with their intervals, and what more hops do to scores and searches."""

from pathlib import Path
from typing import Any

from loadtests.seven import scores
from loadtests.seven.scores import Measured, Results
from searchr1.evaluation.bootstrap import Interval
from searchr1.files import whole_file
from searchr1.trainer.curves import COLORS

_HOPS = (1, 2, 3, 4)
_DODGE = 0.03
"""Distance between rows at one number of hops, so that their intervals can be told apart."""
_GREEDY, _SAMPLED, _GOLD = COLORS[0], COLORS[1], "#9ca3af"


def draw_averages(results: Results, path: Path) -> None:
    """Draw each row's exact match on the average of the sets, greedy and sampled, with 95 % intervals."""
    rows = [one for one in results.rows if one.greedy or one.sampled][::-1]
    figure, axis = _pyplot().subplots(figsize=(9, 0.36 * len(rows) + 1.4), layout="constrained")
    try:
        for place, one in enumerate(rows):
            color = _GOLD if one.row.searched == "oracle" else _GREEDY
            greedy = results.average(one.greedy, scores.exact, scores.in_seven)
            sampled = results.average(one.sampled, scores.exact, scores.in_seven)
            if greedy is not None:
                axis.barh(place, greedy.mean, color=color, alpha=0.75)
                axis.errorbar(greedy.mean, place, xerr=_arms(greedy), color="black", linewidth=1, capsize=3)
            if sampled is not None:
                axis.errorbar(sampled.mean, place - 0.28, xerr=_arms(sampled), color=_SAMPLED, marker="o", markersize=4)
        axis.set_yticks(range(len(rows)), [_label(one) for one in rows], fontsize=8)
        axis.set_xlim(left=0)
        axis.set_xlabel("exact match, mean of the seven sets; bars greedy, dots sampled, gray with gold passages")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", alpha=0.25)
        _save(figure, path)
    finally:
        _pyplot().close(figure)


def draw_hops(results: Results, path: Path) -> None:
    """Draw exact match and searches per answer over hops, greedy, with 95 % intervals; dense retrieval is left out."""
    rows = [one for one in results.rows if one.greedy and one.row.searched != "dense"]
    pyplot = _pyplot()
    figure, (right, counts) = pyplot.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    try:
        colors = pyplot.get_cmap("tab20").colors
        for number, one in enumerate(rows):
            shift = (number - (len(rows) - 1) / 2) * _DODGE
            for axis, value in ((right, scores.exact), (counts, scores.searches)):
                found = [
                    (hops + shift, interval)
                    for hops in _HOPS
                    if (interval := results.pooled(one.greedy, value, scores.with_hops(hops))) is not None
                ]
                if found:
                    arms = [[_arms(interval)[side][0] for _, interval in found] for side in (0, 1)]
                    places, means = [place for place, _ in found], [interval.mean for _, interval in found]
                    label = _label(one) if axis is right else None
                    axis.errorbar(
                        places, means, yerr=arms, color=colors[number % 20], marker="o", markersize=3, label=label
                    )
        for axis, title in ((right, "exact match"), (counts, "searches per answer")):
            axis.set_title(title)
            axis.set_xlabel("hops")
            axis.set_xticks(_HOPS)
            axis.set_ylim(bottom=0)
            axis.spines[["top", "right"]].set_visible(False)
            axis.grid(alpha=0.25)
        figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)
        _save(figure, path)
    finally:
        pyplot.close(figure)


def _label(one: Measured) -> str:
    return f"{one.row.title}, {one.row.retriever_title}" if one.row.searched in ("bm25", "dense") else one.row.title


def _arms(interval: Interval) -> tuple[list[float], list[float]]:
    """Return how far the interval reaches below and above its mean."""
    return [max(0.0, interval.mean - interval.low)], [max(0.0, interval.high - interval.mean)]


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    with whole_file(path) as file:
        figure.savefig(file, dpi=100, format="png")
