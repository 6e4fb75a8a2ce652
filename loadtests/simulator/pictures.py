"""Pictures of the comparison: latencies by scenario, and throughput and latency as the load rises."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.simulator.outcome import Outcome

_COLORS = {
    "fcfs, no cap": "#9ca3af",
    "fcfs, fixed cap": "#d1d5db",
    "priority by turn, no cap": "#f59e0b",
    "priority by turn, fixed cap": "#fcd34d",
    "ThunderAgent-like": "#dc2626",
    "CacheTTL-like, in the engine": "#7c3aed",
    "ours": "#2563eb",
    "ours, growth known": "#93c5fd",
    "endless KV cache, priority": "#16a34a",
}


def draw_latencies(path: Path, latencies_s: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Draw the share of runs that have ended after so many seconds, a panel a scenario, a line a policy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    columns = 3
    rows = -(-len(latencies_s) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(13, 3.4 * rows), layout="constrained", squeeze=False)
    for panel in panels.flat[len(latencies_s) :]:
        panel.axis("off")
    for panel, (scenario, by_policy) in zip(panels.flat, latencies_s.items(), strict=False):
        for policy, values in by_policy.items():
            shares = [(number + 1) / len(values) for number in range(len(values))]
            panel.plot(values, shares, color=_COLORS[policy], linewidth=2 if policy == "ours" else 1.2, label=policy)
        panel.set_title(scenario)
        panel.set_xlabel("seconds from coming to end")
        panel.set_ylim(0, 1)
        panel.set_xlim(left=0)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=9, ncols=4)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def draw_loads(path: Path, loads: Mapping[str, Sequence[tuple[float, Outcome]]]) -> None:
    """Draw 95th percentiles and cached shares over the rate at which runs come."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (latency, kept) = pyplot.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    for policy, points in loads.items():
        rates = [rate for rate, _ in points]
        style = {"color": _COLORS[policy], "linewidth": 2 if policy == "ours" else 1.2, "marker": "."}
        latency.plot(rates, [found.p95_s for _, found in points], label=policy, **style)
        kept.plot(rates, [found.kept for _, found in points], **style)
    latency.set_ylabel("95th percentile of latency, s")
    latency.set_yscale("log")
    kept.set_ylabel("kept KV cache, share of tokens")
    kept.set_ylim(0, 1)
    for panel in (latency, kept):
        panel.set_xlabel("runs that come, a second and replica")
        panel.spines[["top", "right"]].set_visible(False)
    latency.legend(fontsize=8)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
