"""The picture of a soak: memory and open files over time, with the faults."""

from collections.abc import Sequence
from pathlib import Path

from loadtests.soak.growth import Sample

_MIB = 2**20
_BLUE, _GREY, _GREEN = "#2563eb", "#9ca3af", "#16a34a"


def draw(path: Path, samples: Sequence[Sample], faults: Sequence[tuple[str, float, float]], warm_up_s: float) -> None:
    """Write the picture. ``faults`` are names, beginnings and ends in seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (memory, files) = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    quiet = [sample for sample in samples if sample.quiet]
    for axes, value, label in (
        (memory, lambda sample: sample.rss_bytes / _MIB, "resident memory, MiB"),
        (files, lambda sample: sample.num_descriptors, "open files"),
    ):
        for _, began, ended in faults:
            axes.axvspan(began / 60, ended / 60, color="#fecaca", linewidth=0)
        axes.plot([s.at_s / 60 for s in samples], [value(s) for s in samples], color=_GREY, linewidth=0.8)
        axes.plot([s.at_s / 60 for s in quiet], [value(s) for s in quiet], ".", color=_BLUE, markersize=4)
        axes.axvline(warm_up_s / 60, color="black", linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=0)
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    files.plot([s.at_s / 60 for s in samples], [s.num_redis for s in samples], color=_GREEN, linewidth=0.8)
    files.set_ylabel("open files (green: Redis)")
    files.set_xlabel("minutes (red: a fault; dots: quiet moments; dotted: warm-up ends)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
