"""Samples of the gateway's process, and whether it has grown."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_RSS_GROWTH = 0.05
"""Share of the resident memory by which the last fifth may be above the first."""


@dataclass(frozen=True)
class Sample:
    """One look at the process."""

    at_s: float
    """Since the soak began."""
    rss_bytes: int
    num_descriptors: int
    """Open files, all of them."""
    num_redis: int
    """Connections to Redis. Their pools are bounded, and keep what the busiest moment took: outages fill them."""
    quiet: bool
    """No request was on its way, and kept connections had had time to close."""


@dataclass(frozen=True)
class Growth:
    """Medians of the first and the last fifth after warm-up, in quiet moments."""

    rss_before: float
    rss_after: float
    descriptors_before: float
    descriptors_after: float

    @property
    def rss_share(self) -> float:
        """By which share the memory grew."""
        return self.rss_after / self.rss_before - 1

    @property
    def is_too_much(self) -> bool:
        """Whether the memory grew by more than ``MAX_RSS_GROWTH``, or descriptors at all."""
        return self.rss_share > MAX_RSS_GROWTH or self.descriptors_after > self.descriptors_before


def growth(samples: Sequence[Sample], warm_up_s: float) -> Growth:
    """Compare the first and the last fifth of the time after ``warm_up_s``. Raises ``ValueError`` without samples."""
    quiet = [sample for sample in samples if sample.quiet and sample.at_s >= warm_up_s]
    if len(quiet) < 2:
        raise ValueError("there are not enough quiet moments after warm-up")
    first, last = quiet[0].at_s, quiet[-1].at_s
    fifth_s = (last - first) / 5
    before = [sample for sample in quiet if sample.at_s <= first + fifth_s]
    after = [sample for sample in quiet if sample.at_s >= last - fifth_s]
    return Growth(
        _median(before, lambda sample: sample.rss_bytes),
        _median(after, lambda sample: sample.rss_bytes),
        _median(before, lambda sample: sample.num_descriptors),
        _median(after, lambda sample: sample.num_descriptors),
    )


def _median(samples: Sequence[Sample], value: Callable[[Sample], int]) -> float:
    return statistics.median(map(value, samples))
