"""The loss curves of a warm-up run as a PNG."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from searchr1.files import whole_file


def plot_losses(records: Sequence[Mapping[str, float | None]], path: Path) -> None:
    """Draw train and validation loss (nats per sampled token, log scale) and exact samples over tokens trained on."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Values that were not finite are None in a record, and break the line.
    rows = [{name: math.nan if value is None else value for name, value in record.items()} for record in records]
    train = [(r["tokens"], r["loss"]) for r in rows if "loss" in r]
    valid = [(r["tokens"], r["validation_loss"], r["validation_exact"]) for r in rows if "validation_loss" in r]
    figure, left = pyplot.subplots(figsize=(8, 4.5))
    try:
        if train:
            left.plot([t / 1e6 for t, _ in train], [v for _, v in train], label="train loss", linewidth=0.8)
        if valid:
            left.plot([v[0] / 1e6 for v in valid], [v[1] for v in valid], label="validation loss", marker=".")
            right = left.twinx()
            right.plot([v[0] / 1e6 for v in valid], [v[2] for v in valid], "g--", label="validation, exact samples")
            right.set_ylim(0, 1)
            right.set_ylabel("share of samples exactly reproduced")
        left.set_yscale("log")
        left.set_xlabel("tokens processed, millions")
        left.set_ylabel("nats per sampled token")
        figure.legend(loc="upper center", ncols=3, frameon=False)
        figure.tight_layout(rect=(0, 0, 1, 0.95))
        with whole_file(path) as file:
            figure.savefig(file, dpi=110, format="png")
    finally:
        pyplot.close(figure)
