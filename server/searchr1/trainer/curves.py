"""Pictures and tables of training runs: one run's curves, and several runs with their spread over seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from searchr1.trainer.metrics import FILE

Record = Mapping[str, float | None]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, which colour-blind readers can tell apart."""

_PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Reward", "mean per rollout", (("reward_mean", "reward"),)),
    (
        "Exact match",
        "share of questions",
        (
            ("em", "training, sampled"),
            ("eval_em", "held out, greedy"),
            ("eval_em_1", "held out, 1 hop"),
            ("eval_em_2", "held out, 2 hops"),
            ("eval_em_3", "held out, 3 hops"),
        ),
    ),
    ("Searches", "per rollout", (("searches", "training"), ("eval_searches", "held out"))),
    ("Response length", "sampled tokens per rollout", (("sampled_tokens", "training"), ("eval_tokens", "held out"))),
    ("KL to the start policy", "nats per token (k3)", (("kl", "KL"),)),
    ("Entropy", "nats per token", (("entropy", "entropy"),)),
    ("Gap to the engine", "nats per token, mean of |difference|", (("gap_mean_abs", "trainer and engine"),)),
    ("Policy loss", "", (("policy_loss", "policy loss"),)),
    ("Value loss", "", (("value_loss", "value loss"),)),
    ("Clipped tokens", "share", (("clip_fraction", "policy"), ("value_clip_fraction", "critic"))),
    ("Gradient norm", "before clipping", (("grad_norm", "policy"), ("critic_grad_norm", "critic"))),
)
_TIMES = (("rollout_s", "rollout"), ("reward_s", "reward"), ("update_s", "update"), ("sync_s", "weights to the engine"))


def read_run(folder: Path) -> list[Record]:
    """The metrics of the run in ``folder``, a line cut off by a kill left out."""
    lines = (folder / FILE).read_text("utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def plot_run(records: Sequence[Record], path: Path) -> None:
    """Draw one run's curves over its steps; panels whose metrics it lacks are left out."""
    panels = [panel for panel in _PANELS if any(_series(records, name)[0] for name, _ in panel[2])]
    has_times = bool(_series(records, "rollout_s")[0])
    num = len(panels) + has_times
    if not num:
        return
    pyplot = _pyplot()
    columns = min(3, num)
    rows = -(-num // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(4.6 * columns, 3.1 * rows), squeeze=False)
    try:
        flat = list(axes.flat)
        for axis, (title, unit, lines) in zip(flat, panels, strict=False):
            _draw_panel(axis, records, title, unit, lines)
        if has_times:
            _draw_times(flat[len(panels)], records)
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
        ("reward_mean", "reward, training rollouts"),
        ("eval_em", "exact match, held out, greedy"),
        ("searches", "searches per rollout, training"),
    ),
) -> None:
    """Draw several runs, given as folders by label: a line for each label's mean, a band from least to largest."""
    pyplot = _pyplot()
    figure, axes = pyplot.subplots(1, len(metrics), figsize=(5.2 * len(metrics), 3.8), squeeze=False)
    try:
        runs = {label: [read_run(folder) for folder in folders] for label, folders in groups.items()}
        for axis, (name, title) in zip(axes.flat, metrics, strict=True):
            for number, (label, members) in enumerate(runs.items()):
                _draw_band(axis, members, name, f"{label} ({len(members)})", COLOURS[number % len(COLOURS)])
            axis.set_title(title, fontsize=11)
            axis.set_xlabel("step")
            axis.grid(alpha=0.25)
        axes.flat[0].legend(fontsize=9, title="runs (seeds)", title_fontsize=9)
        _save(figure, path)
    finally:
        pyplot.close(figure)


def summarize_runs(groups: Mapping[str, Sequence[Path]]) -> str:
    """A Markdown table: held-out exact match and searches before and after, over each label's runs."""
    hops = ("eval_em_1", "eval_em_2", "eval_em_3")
    lines = [
        "| runs | seeds | EM at start | EM at end | gain | 1 hop | 2 hops | 3 hops | searches per answer |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label, folders in groups.items():
        ends = [_ends(read_run(folder)) for folder in folders]
        if not ends:
            continue
        first, last = [end[0] for end in ends], [end[1] for end in ends]
        gains = [_value(b, "eval_em") - _value(a, "eval_em") for a, b in zip(first, last, strict=True)]
        moved = [f"{_mean(first, name)} → {_mean(last, name)}" for name in (*hops, "eval_searches")]
        cells = [label, str(len(ends)), _mean(first, "eval_em"), _mean(last, "eval_em"), f"+{_spread(gains)}", *moved]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _series(records: Iterable[Record], name: str) -> tuple[list[float], list[float]]:
    """Steps and values where ``name`` was recorded."""
    pairs = [(record["step"], record[name]) for record in records if record.get(name) is not None]
    return [float(step or 0) for step, _ in pairs], [float(value or 0) for _, value in pairs]


def _draw_panel(axis: Any, records: Sequence[Record], title: str, unit: str, lines: Sequence[tuple[str, str]]) -> None:
    for number, (name, label) in enumerate(lines):
        steps, values = _series(records, name)
        if steps:
            is_sparse = name.startswith("eval_")
            style = "o--" if name[-2:] in ("_1", "_2", "_3") else "o-" if is_sparse else "-"
            axis.plot(steps, values, style, label=label, color=COLOURS[number], markersize=3.5, linewidth=1.4)
    axis.set_title(title, fontsize=11)
    axis.set_xlabel("step")
    axis.set_ylabel(unit, fontsize=9)
    axis.grid(alpha=0.25)
    if len(axis.get_lines()) > 1:
        axis.legend(fontsize=8)


def _draw_times(axis: Any, records: Sequence[Record]) -> None:
    timed = [record for record in records if record.get("rollout_s") is not None]
    steps = [float(record["step"] or 0) for record in timed]
    shares = [[_value(record, name) for record in timed] for name, _ in _TIMES]
    axis.stackplot(steps, shares, labels=[label for _, label in _TIMES], colors=COLOURS, alpha=0.8)
    axis.set_title("Where a step's time goes", fontsize=11)
    axis.set_xlabel("step")
    axis.set_ylabel("seconds", fontsize=9)
    axis.legend(fontsize=8, loc="lower right")


def _draw_band(axis: Any, runs: Sequence[Sequence[Record]], name: str, label: str, colour: str) -> None:
    """Steps that not all runs have yet are left out."""
    by_run = [dict(zip(*_series(records, name), strict=True)) for records in runs]
    steps = sorted(set.intersection(*map(set, by_run))) if by_run else []
    if not steps:
        return
    columns = [[run[step] for run in by_run] for step in steps]
    marker = "o" if name.startswith("eval_") else None
    axis.plot(steps, list(map(fmean, columns)), label=label, color=colour, marker=marker, markersize=4, linewidth=1.8)
    if len(runs) > 1:
        axis.fill_between(
            steps, list(map(min, columns)), list(map(max, columns)), color=colour, alpha=0.18, linewidth=0
        )


def _ends(records: Sequence[Record]) -> tuple[Record, Record]:
    evaluated = [record for record in records if record.get("eval_em") is not None]
    return evaluated[0], evaluated[-1]


def _value(record: Record, name: str) -> float:
    return float(record.get(name) or 0.0)


def _mean(records: Sequence[Record], name: str) -> str:
    return f"{fmean(_value(record, name) for record in records):.3f}"


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    part = path.with_name(f"{path.name}.part")
    figure.savefig(part, dpi=110, format="png")
    part.replace(path)
