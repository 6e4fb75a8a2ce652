"""The held-out questions of a run: which of them are asked, and the scores of their rollouts."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from statistics import fmean
from typing import TypeVar

from searchr1.data.questions import Question
from searchr1.evaluation.metrics import exact_match
from searchr1.trainer.rl.rollouts import RolloutResult

GREEDY, SAMPLED = "eval", "eval_sampled"
"""First words of the metrics of an evaluation, by how its answers were chosen."""

K = TypeVar("K", int, str)


def draw_questions(questions: Sequence[Question], num_each: int, *, seed: int) -> tuple[Question, ...]:
    """Return ``num_each`` questions of each set, or all where there are fewer, in their order.

    The draw from a set depends on its questions and on ``seed`` alone, not on the other sets.
    """
    places: dict[str | None, list[int]] = defaultdict(list)
    for place, question in enumerate(questions):
        places[question.data_source].append(place)
    drawn = [random.Random(f"{seed}/{name}").sample(those, min(num_each, len(those))) for name, those in places.items()]
    return tuple(questions[place] for place in sorted(chain.from_iterable(drawn)))


def scores(kind: str, results: Sequence[RolloutResult]) -> dict[str, float]:
    """Return the metrics of an evaluation of ``kind``; a rollout that the engine failed counts as wrong.

    ``_em`` is the mean over all rollouts; ``_em_2`` that of questions of 2 hops; where there are several sets,
    ``_em_nq`` that of the set ``nq``, and ``_em_sets`` the plain mean over the sets, as in the paper's table.
    """
    by_hops = _by(results, lambda question: question.hops)
    by_set = _by(results, lambda question: question.data_source)
    record = {
        f"{kind}_em": fmean(map(is_right, results)),
        **{f"{kind}_em_{hops}": score for hops, score in by_hops.items()},
    }
    if len(by_set) > 1:
        record |= {f"{kind}_em_{name}": score for name, score in by_set.items()}
        record[f"{kind}_em_sets"] = fmean(by_set.values())
    return record | {
        f"{kind}_searches": fmean(result.rollout.num_searches for result in results),
        f"{kind}_answered": fmean(result.rollout.answer is not None for result in results),
        f"{kind}_tokens": fmean(result.rollout.num_sampled_tokens for result in results),
    }


def main_score(record: Mapping[str, float | None]) -> float | None:
    """Return the one number by which checkpoints are compared: the mean over the sets, or over all questions."""
    return record.get(f"{GREEDY}_em_sets", record.get(f"{GREEDY}_em"))


def is_right(result: RolloutResult) -> bool:
    """Return whether the answer of a rollout is one of its question's."""
    return exact_match(result.rollout.answer, result.question.golden_answers)


def _by(results: Sequence[RolloutResult], key: Callable[[Question], K | None]) -> dict[K, float]:
    """Return the share of right answers by what ``key`` gives, in its order; None is no group."""
    groups: dict[K, list[bool]] = defaultdict(list)
    for result in results:
        if (name := key(result.question)) is not None:
            groups[name].append(is_right(result))
    return {name: fmean(groups[name]) for name in sorted(groups)}
