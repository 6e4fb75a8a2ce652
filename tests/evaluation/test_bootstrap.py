"""Intervals: of clusters, of strata, paired, and where nothing varies."""

import random

import pytest

from searchr1.evaluation.bootstrap import Scored, bootstrap, paired_difference, paired_gain, share_interval
from searchr1.evaluation.report import wilson_interval


def drawn(num: int, share: float, *, per_cluster: int = 1, seed: int = 1) -> list[Scored]:
    """Scores of 0 and 1 that all of a cluster share."""
    chance = random.Random(seed)
    clusters = [float(chance.random() < share) for _ in range(num // per_cluster)]
    return [Scored(clusters[i // per_cluster], f"c{i // per_cluster}") for i in range(num)]


def test_of_questions_alone_it_is_nearly_wilsons() -> None:
    scores = drawn(400, 0.3)
    interval = bootstrap(scores)
    low, high = wilson_interval(round(sum(score.value for score in scores)), len(scores))
    assert interval.mean == pytest.approx(sum(score.value for score in scores) / 400)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)


def test_clusters_that_agree_make_it_wider() -> None:
    alone, together = (bootstrap(drawn(400, 0.5, per_cluster=size)) for size in (1, 16))
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_the_mean_is_over_strata_whatever_their_sizes() -> None:
    scores = [Scored(1.0, f"a{i}", "large") for i in range(30)] + [Scored(0.0, f"b{i}", "small") for i in range(3)]
    interval = bootstrap(scores)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((0.5, 0.5, 0.5))


def test_the_same_seed_gives_the_same_interval() -> None:
    scores = drawn(60, 0.4)
    assert bootstrap(scores, seed=3) == bootstrap(scores, seed=3)
    assert bootstrap(scores, seed=3) != bootstrap(scores, seed=4)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_where_nothing_varies_a_share_has_wilsons_interval_over_clusters(value: float) -> None:
    scores = [Scored(value, f"c{i // 2}") for i in range(20)]
    bare, share = bootstrap(scores), share_interval(scores)
    assert (bare.low, bare.high) == (value, value)
    assert (share.mean, share.low, share.high) == (value, *wilson_interval(round(10 * value), 10))


def test_a_pair_is_compared_question_by_question() -> None:
    theirs = {f"q{i}": score for i, score in enumerate(drawn(200, 0.5))}
    more = {f"q{i}": Scored(1.0, theirs[f"q{i}"].cluster) for i in range(0, 200, 10)}
    ours = theirs | more
    gained = sum(score.value for score in ours.values()) - sum(score.value for score in theirs.values())
    found = paired_difference(ours, theirs)
    assert found.mean == pytest.approx(gained / 200)
    assert found.is_above_zero
    # Apart, the two could not be told from each other.
    apart = [bootstrap(list(side.values())) for side in (ours, theirs)]
    assert apart[0].low < apart[1].high
    assert not paired_difference(theirs, theirs).is_above_zero


def test_only_shared_questions_count() -> None:
    ours = {"a": Scored(1.0, "a"), "b": Scored(1.0, "b")}
    assert paired_difference(ours, {"b": Scored(1.0, "b"), "c": Scored(0.0, "c")}).mean == 0.0
    with pytest.raises(ValueError, match="share no question"):
        paired_difference(ours, {"c": Scored(0.0, "c")})


def test_a_gain_is_a_share_of_what_was_there() -> None:
    theirs = {f"q{i}": Scored(0.5, f"c{i}") for i in range(20)}
    ours = {name: Scored(0.6, score.cluster) for name, score in theirs.items()}
    found = paired_gain(ours, theirs)
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2, 0.2))
    nothing = {name: Scored(0.0, score.cluster) for name, score in theirs.items()}
    assert paired_gain(ours, nothing) is None
