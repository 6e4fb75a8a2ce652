"""Intervals by the bootstrap, where questions come in clusters: whole clusters are drawn again, stratum by stratum.

Questions about one article or one country are answered alike, so drawing single questions makes intervals too narrow.
A stratum is a set of questions whose size is given, such as NQ: the mean is that of the strata's means, which is the
average of the paper's table. Differences are paired: both sides see the same draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from searchr1.evaluation.report import wilson_interval

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Draws = npt.NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
"""Share of the resamples that lie in an interval."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One question's score, and what it is drawn with."""

    value: float
    cluster: str
    """Name of what its stratum's questions share, such as an article."""
    stratum: str = ""
    """The set that it belongs to."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, or a difference of two, with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def is_above_zero(self) -> bool:
        """True where the whole interval is."""
        return self.low > 0


def bootstrap(scores: Sequence[Scored], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return the mean over strata of ``scores``, at least one, with its interval.

    A stratum of one cluster adds no spread.
    """
    mean, draws = _drawn(scores, [[score.value for score in scores]], resamples, seed)
    return _interval(mean[0], draws[0])


def share_interval(scores: Sequence[Scored], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Return what ``bootstrap`` does, of values from 0 to 1.

    Where all are 0 or all are 1 a bootstrap knows no spread: the interval is then Wilson's over the clusters.
    """
    values = {score.value for score in scores}
    if values not in ({0.0}, {1.0}):
        return bootstrap(scores, resamples=resamples, seed=seed)
    [value] = values
    num_clusters = len({(score.stratum, score.cluster) for score in scores})
    return Interval(value, *wilson_interval(round(value * num_clusters), num_clusters))


def paired_difference(
    ours: Mapping[str, Scored], theirs: Mapping[str, Scored], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Return how much higher ``ours`` is than ``theirs`` over the questions, by id, that both have.

    Raises:
        ValueError: they share none.
    """
    means, draws = _pair(ours, theirs, resamples, seed)
    return _interval(means[0] - means[1], draws[0] - draws[1])


def paired_gain(
    ours: Mapping[str, Scored], theirs: Mapping[str, Scored], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return how much higher ``ours`` is than ``theirs``, as a share of theirs; None where theirs can be 0.

    Raises:
        ValueError: they share no question.
    """
    means, draws = _pair(ours, theirs, resamples, seed)
    if means[1] <= 0 or draws[1].min() <= 0:
        return None
    return _interval(means[0] / means[1] - 1, draws[0] / draws[1] - 1)


def _pair(
    ours: Mapping[str, Scored], theirs: Mapping[str, Scored], resamples: int, seed: int
) -> "tuple[list[float], list[Draws]]":
    shared = [question for question in ours if question in theirs]
    if not shared:
        raise ValueError("two methods that share no question can't be compared")
    values = [[side[question].value for question in shared] for side in (ours, theirs)]
    return _drawn([ours[question] for question in shared], values, resamples, seed)


def _interval(mean: float, draws: "Draws") -> Interval:
    import numpy as np

    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Interval(float(mean), float(low), float(high))


def _drawn(
    places: Sequence[Scored], columns: Sequence[Sequence[float]], resamples: int, seed: int
) -> "tuple[list[float], list[Draws]]":
    """Return for each column of values its mean over strata, and that of each resample; ``places`` say whose they are.

    All columns see the same resamples.
    """
    import numpy as np

    random = np.random.default_rng(seed)
    strata = list(dict.fromkeys(place.stratum for place in places))
    means = [0.0 for _ in columns]
    draws = [np.zeros(resamples) for _ in columns]
    for stratum in strata:
        rows = [row for row, place in enumerate(places) if place.stratum == stratum]
        _, member = np.unique([places[row].cluster for row in rows], return_inverse=True)
        sizes = np.bincount(member)
        times = random.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
        for number, column in enumerate(columns):
            sums = np.bincount(member, weights=[column[row] for row in rows])
            means[number] += float(sums.sum() / len(rows)) / len(strata)
            draws[number] += (times @ sums) / (times @ sizes) / len(strata)
    return means, draws
