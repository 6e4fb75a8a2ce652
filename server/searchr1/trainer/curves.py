"""Pictures and tables of training runs: one run's curves, and several runs with their spread over seeds."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

from searchr1.data.sets import TITLES
from searchr1.files import whole_file
from searchr1.trainer.metrics import FILE, read_metrics

Record = Mapping[str, float | None]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colors, which color-blind readers can tell apart."""

_MARKERS = "os^Dv<P"
_DASHES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")


class _Panel(NamedTuple):
    """A picture of the grid: its lines as metric and label, and the range of its vertical axis; None fits the data."""

    title: str
    unit: str
    lines: tuple[tuple[str, str], ...]
    low: float | None = None
    high: float | None = None


_PANELS = (
    _Panel("Reward", "mean per rollout", (("reward_mean", "reward"),)),
    _Panel(
        "Exact match",
        "share of questions",
        (("em", "training, sampled"), ("eval_em", "held out, greedy"), ("eval_sampled_em", "held out, sampled")),
        0,
        1,
    ),
    _Panel(
        "Exact match by hops, held out",
        "share of questions",
        (("eval_em_1", "1 hop"), ("eval_em_2", "2 hops"), ("eval_em_3", "3 hops")),
        0,
        1,
    ),
    _Panel(
        "Exact match by set, held out",
        "share of questions",
        (("eval_em_sets", "mean of sets"), *((f"eval_em_{name}", title) for name, title in TITLES.items())),
        0,
        1,
    ),
    _Panel("Searches", "searches per rollout", (("searches", "training"), ("eval_searches", "held out")), 0),
    _Panel(
        "Response length",
        "sampled tokens per rollout",
        (("sampled_tokens", "training"), ("eval_tokens", "held out")),
        0,
    ),
    _Panel("KL to the start policy", "nats per token (k3)", (("kl", "KL"),)),
    _Panel("Entropy", "nats per token", (("entropy", "entropy"),), 0),
    _Panel("Gap between engine and trainer", "mean |log p difference|, nats", (("gap_mean_abs", "gap"),), 0),
    _Panel("Loss", "loss", (("policy_loss", "policy"), ("value_loss", "critic"))),
    _Panel("Clipped", "share of tokens", (("clip_fraction", "policy"), ("value_clip_fraction", "critic")), 0),
    _Panel("Gradient norm", "norm before clipping", (("grad_norm", "policy"), ("critic_grad_norm", "critic")), 0),
)
_TIMES = (("rollout_s", "rollout"), ("reward_s", "reward"), ("update_s", "update"), ("sync_s", "weights to engine"))
_UNITS = {name: panel.unit for panel in _PANELS for name, _ in panel.lines}
_RANGES = {name: (panel.low, panel.high) for panel in _PANELS for name, _ in panel.lines}


def read_run(folder: Path) -> list[Record]:
    """Return the metrics of the run in ``folder``, without a last line that a kill cut off."""
    return list(read_metrics(folder / FILE))


def plot_run(records: Sequence[Record], path: Path) -> None:
    """Draw one run's curves over its steps; panels whose metrics it lacks are left out; with none, no file."""
    panels = [panel for panel in _PANELS if any(_series(records, name)[0] for name, _ in panel.lines)]
    timed = [record for record in records if sum(_value(record, name) for name, _ in _TIMES) > 0]
    num = len(panels) + bool(timed)
    if not num:
        return
    pyplot = _pyplot()
    columns = min(3, num)
    rows = -(-num // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False, layout="constrained"
    )
    try:
        flat = list(axes.flat)
        last = max(float(record["step"] or 0) for record in records)
        for axis, panel in zip(flat, panels, strict=False):
            _draw_panel(axis, records, panel)
            _finish(axis, panel.title, panel.unit, panel.low, panel.high, last_step=last)
        if timed:
            _draw_times(flat[len(panels)], timed)
            _finish(
                flat[len(panels)],
                "Where a step's time goes",
                "% of seconds, evaluation left out",
                0,
                100,
                last_step=last,
            )
        for axis in flat[num:]:
            axis.set_visible(False)
        _save(figure, path)
    finally:
        pyplot.close(figure)


def plot_runs(
    groups: Mapping[str, Sequence[Path]],
    path: Path,
    *,
    metrics: Sequence[tuple[str, str]] = (
        ("reward_mean", "Reward, training rollouts"),
        ("eval_em", "Exact match, held out, greedy"),
        ("searches", "Searches, training rollouts"),
    ),
) -> None:
    """Draw several runs, given as folders by label: each label's mean, a band from least to largest, a thin line a run.

    ``metrics`` are names of records with the titles of their panels; those that no run has are left out, and a
    ValueError says when that is all of them. Means and bands are over the steps that all runs of a label have.
    """
    runs = {label: [read_run(folder) for folder in folders] for label, folders in groups.items() if folders}
    everything = [record for members in runs.values() for records in members for record in records]
    shown = [(name, title) for name, title in metrics if _series(everything, name)[0]]
    if not shown:
        raise ValueError(
            f"{', '.join(groups) or 'no runs'}: no values of {', '.join(name for name, _ in metrics)} to draw"
        )
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5.2 * len(shown), 4.2), squeeze=False, layout="constrained")
    try:
        last = max(float(record["step"] or 0) for record in everything)
        for axis, (name, title) in zip(axes.flat, shown, strict=True):
            for number, (label, members) in enumerate(runs.items()):
                _draw_band(axis, members, name, label, number)
            low, high = _RANGES.get(name, (None, None))
            _finish(axis, title, _UNITS.get(name, name), low, high, last_step=last)
        handles = [_legend_line(label, len(members), number) for number, (label, members) in enumerate(runs.items())]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
        _save(figure, path)
    finally:
        pyplot.close(figure)


def summarize_runs(groups: Mapping[str, Sequence[Path]]) -> str:
    """Return a Markdown table: held-out exact match and searches before and after, over each label's runs.

    Start is step 0, end the last evaluation and best the highest one of each run; values are means over the runs, the
    gain with its sample standard deviation. What was not recorded is a dash; runs that were not evaluated are counted.
    """
    moved = ("eval_em_1", "eval_em_2", "eval_em_3", "eval_searches")
    lines = [
        "| runs | seeds | steps | EM at start | EM at end | best EM | gain "
        "| 1 hop | 2 hops | 3 hops | searches per answer |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for label, folders in groups.items():
        runs = [evaluated for folder in folders if (evaluated := _evaluated(read_run(folder)))]
        starts, ends = [run[0] if run[0]["step"] == 0 else {} for run in runs], [run[-1] for run in runs]
        cells = [
            label.replace("|", "\\|"),
            str(len(runs)) if len(runs) == len(folders) else f"{len(runs)} of {len(folders)}",
            _range([int(end["step"] or 0) for end in ends]),
            _mean(_values(starts, "eval_em")),
            _mean(_values(ends, "eval_em")),
            _mean([max(_series(run, "eval_em")[1]) for run in runs]),
            _gain(starts, ends),
            *(f"{_mean(_values(starts, name))} → {_mean(_values(ends, name))}" for name in moved),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _series(records: Iterable[Record], name: str) -> tuple[list[float], list[float]]:
    """Return steps and values where ``name`` was recorded and is finite."""
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [float(step or 0) for step, _ in pairs], [float(value or 0) for _, value in pairs]


def _draw_panel(axis: Any, records: Sequence[Record], panel: _Panel) -> None:
    drawn = 0
    for number, (name, label) in enumerate(panel.lines):
        present = [record for record in records if name in record]
        if not _series(present, name)[0]:
            continue
        # A value that was not finite breaks the line: a run that blew up there must not look smooth.
        values = [math.nan if (value := record[name]) is None else value for record in present]
        marker = _MARKERS[number % len(_MARKERS)] if name.startswith("eval_") or len(present) == 1 else None
        steps = [float(record["step"] or 0) for record in present]
        color, dashes = COLORS[number % len(COLORS)], _DASHES[number // len(COLORS)]
        axis.plot(steps, values, dashes, label=label, color=color, marker=marker, markersize=4, linewidth=1.5)
        drawn += 1
    if drawn > 1:
        axis.legend(fontsize=8)


def _draw_times(axis: Any, timed: Sequence[Record]) -> None:
    """Draw the share of each part in the seconds of all parts; the longest lies lowest."""
    totals = {name: sum(_value(record, name) for record in timed) for name, _ in _TIMES}
    whole = sum(totals.values())
    steps = [float(record["step"] or 0) for record in timed]
    sums = [sum(_value(record, name) for name, _ in _TIMES) for record in timed]
    parts = sorted(_TIMES, key=lambda part: -totals[part[0]])
    shares = [[100 * _value(r, name) / all_s for r, all_s in zip(timed, sums, strict=True)] for name, _ in parts]
    labels = [f"{label}, {_percent(totals[name] / whole)}" for name, label in parts]
    colors = [COLORS[_TIMES.index(part)] for part in parts]
    if len(steps) == 1:
        # One step has no width to stack over.
        steps, shares = [steps[0] - 0.4, steps[0] + 0.4], [[share[0], share[0]] for share in shares]
    axis.stackplot(steps, shares, labels=labels, colors=colors, alpha=0.8)
    axis.legend(fontsize=8, loc="lower right", reverse=True, framealpha=0.9)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.1g} %"


def _draw_band(axis: Any, runs: Sequence[Sequence[Record]], name: str, label: str, number: int) -> None:
    """Draw a thin line for each run; mean and band only over steps that all of them have."""
    color = COLORS[number % len(COLORS)]
    by_run = [dict(zip(*_series(records, name), strict=True)) for records in runs]
    if len(runs) > 1:
        for run in by_run:
            axis.plot(list(run), list(run.values()), color=color, linewidth=0.7, alpha=0.5)
    steps = sorted(set.intersection(*map(set, by_run)))
    columns = [[run[step] for run in by_run] for step in steps]
    if not columns:
        return
    marker = _MARKERS[number % len(_MARKERS)] if name.startswith("eval_") or len(steps) == 1 else None
    # Dashes, so that of two lines that coincide both are seen.
    dashes = _DASHES[number % len(_DASHES)]
    means = list(map(fmean, columns))
    axis.plot(steps, means, dashes, label=label, color=color, marker=marker, markersize=5, linewidth=2)
    if len(runs) > 1:
        low, high = list(map(min, columns)), list(map(max, columns))
        axis.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)


def _legend_line(label: str, num_runs: int, number: int) -> Any:
    from matplotlib.lines import Line2D

    text = f"{label}, mean and range of {num_runs} seeds" if num_runs > 1 else f"{label}, one seed"
    color, marker = COLORS[number % len(COLORS)], _MARKERS[number % len(_MARKERS)]
    dashes = _DASHES[number % len(_DASHES)]
    return Line2D([], [], color=color, linestyle=dashes, marker=marker, markersize=5, linewidth=2, label=text)


def _finish(axis: Any, title: str, unit: str, low: float | None, high: float | None, *, last_step: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title, fontsize=11)
    axis.set_xlabel("step", fontsize=9)
    axis.set_ylabel(unit, fontsize=9)
    # The same steps under each panel, so that a reader can look down a column.
    axis.set_xlim(-0.02 * max(1.0, last_step), 1.02 * max(1.0, last_step))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if low is not None:
        top = axis.dataLim.y1
        # All zero needs a range of its own: matplotlib's would reach below nought.
        axis.set_ylim(low, high if high is not None else 1.05 * top if math.isfinite(top) and top > low else low + 1)
    if high is None:
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    axis.grid(alpha=0.25)


def _evaluated(records: Iterable[Record]) -> list[Record]:
    return [record for record in records if record.get("eval_em") is not None]


def _value(record: Record, name: str) -> float:
    return float(record.get(name) or 0.0)


def _values(records: Iterable[Record], name: str) -> list[float]:
    return [value for record in records if (value := record.get(name)) is not None]


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" if values else "–"


def _range(steps: Sequence[int]) -> str:
    if not steps:
        return "–"
    return str(steps[0]) if min(steps) == max(steps) else f"{min(steps)}–{max(steps)}"


def _gain(starts: Sequence[Record], ends: Sequence[Record]) -> str:
    pairs = zip(starts, ends, strict=True)
    gains = [_value(end, "eval_em") - _value(start, "eval_em") for start, end in pairs if "eval_em" in start]
    if not gains:
        return "–"
    return f"{fmean(gains):+.3f}" + (f" ± {stdev(gains):.3f}" if len(gains) > 1 else "")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    with whole_file(path) as file:
        figure.savefig(file, dpi=110, format="png")
