"""Pictures of the comparison: who has ended when, and throughput and cached share by arm."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from loadtests.agents.result import Result

_COLORS = {"plain": "#9ca3af", "thunderagent": "#dc2626", "ours": "#2563eb", "oracle": "#16a34a"}
_OTHER = "#f59e0b"


def draw_latencies(path: Path, measured: Sequence[Result]) -> None:
    """Draw the share of runs that have ended after so many seconds, a panel a scenario, a line an arm.

    Upstream's ``infer.py`` is left out: all others would stand at the left edge.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawn = [result for result in measured if result.arm != "infer-py"]
    scenarios = list(dict.fromkeys((result.scenario, result.num_runs) for result in drawn))
    columns = min(3, max(1, len(scenarios)))
    rows = -(-len(scenarios) // columns) or 1
    size = (4.5 * columns, 3.6 * rows)
    figure, panels = pyplot.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for panel in panels.flat[len(scenarios) :]:
        panel.axis("off")
    for panel, scenario in zip(panels.flat, scenarios, strict=False):
        here = [result for result in drawn if (result.scenario, result.num_runs) == scenario]
        for arm in dict.fromkeys(result.arm for result in here):
            values = sorted(value for result in here if result.arm == arm for value in result.latencies_s)
            shares = [(number + 1) / len(values) for number in range(len(values))]
            style = {"color": _COLORS[arm], "linewidth": 2.2} if arm in _COLORS else {"linewidth": 0.8}
            panel.plot(values, shares, label=arm, **style)
        panel.set_title(f"{scenario[0]}, {scenario[1]} runs")
        panel.set_xlabel("seconds from coming to end")
        panel.set_ylim(0, 1)
        panel.set_xlim(left=0)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=7)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def draw_parts(path: Path, measured: Sequence[Result]) -> None:
    """Draw throughput and cached share of each arm of the scenario with most arms."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    scenarios = dict.fromkeys((result.scenario, result.num_runs) for result in measured)
    here = max(
        ([r for r in measured if (r.scenario, r.num_runs) == scenario] for scenario in scenarios),
        key=lambda group: len({result.arm for result in group}),
    )
    arms = list(dict.fromkeys(result.arm for result in here))[::-1]
    figure, (rates, shares) = pyplot.subplots(
        1, 2, figsize=(11, 0.35 * len(arms) + 1.4), layout="constrained", sharey=True
    )
    colors = [_COLORS.get(arm, _OTHER) for arm in arms]
    by_arm = [[result for result in here if result.arm == arm] for arm in arms]
    rates.barh(arms, [statistics.median(r.runs_per_min for r in group) for group in by_arm], color=colors)
    shares.barh(arms, [statistics.median(r.cached for r in group) for group in by_arm], color=colors)
    rates.set_xlabel("runs a minute")
    shares.set_xlabel("share of prompt tokens cached")
    shares.set_xlim(0, 1)
    for panel in (rates, shares):
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
