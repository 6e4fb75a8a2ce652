"""The picture of a soak: memory and open files over time, with the faults."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.soak.growth import Sample

_MIB = 2**20
_BLUE, _GREY, _GREEN = "#2563eb", "#9ca3af", "#16a34a"


def draw(path: Path, samples: Sequence[Sample], faults: Sequence[tuple[str, float, float]], warm_up_s: float) -> None:
    """Write the picture. ``faults`` are names, beginnings and ends in seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, (memory, files) = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
    _one(memory, samples, [sample.rss_bytes / _MIB for sample in samples], faults, warm_up_s)
    _one(files, samples, [sample.num_descriptors for sample in samples], faults, warm_up_s)
    memory.set_ylabel("resident memory, MiB")
    files.plot([s.at_s / 60 for s in samples], [s.num_redis for s in samples], color=_GREEN, linewidth=0.8)
    files.set_ylabel("open files (green: Redis)")
    files.set_xlabel("minutes (red: a fault; dots: quiet moments; dotted: warm-up ends)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _one(
    axes: Any,
    samples: Sequence[Sample],
    values: Sequence[float],
    faults: Sequence[tuple[str, float, float]],
    warm_up_s: float,
) -> None:
    for _, began, ended in faults:
        axes.axvspan(began / 60, ended / 60, color="#fecaca", linewidth=0)
    minutes = [sample.at_s / 60 for sample in samples]
    axes.plot(minutes, values, color=_GREY, linewidth=0.8)
    quiet = [number for number, sample in enumerate(samples) if sample.quiet]
    axes.plot([minutes[n] for n in quiet], [values[n] for n in quiet], ".", color=_BLUE, markersize=4)
    axes.axvline(warm_up_s / 60, color="black", linewidth=0.8, linestyle=":")
    axes.set_ylim(0, 1.15 * max(values))
    axes.spines[["top", "right"]].set_visible(False)
