"""Rewards: a number for how a rollout ended. A reward is any function of an ``Outcome``; users register their own.

Two ways to name one in a configuration: by the name it was registered under, or as ``module:function``.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from searchr1.data.questions import Question
from searchr1.errors import ConfigurationError
from searchr1.evaluation.metrics import exact_match, sub_exact_match
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.tags import Pair, Tags
from searchr1.loop.types import Segment, Status
from searchr1.registry import Registry


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a rollout as a reward sees it."""

    question: str
    golden_answers: tuple[str, ...]
    answer: str | None
    """The policy's own answer, stripped; None where it gave none, or where it lies past the cut."""
    status: Status
    segments: tuple[Segment, ...]
    """The trajectory up to the cut, prompt included. Segments that do not fit whole are left out."""
    profile: Profile = SEARCH_R1
    """The policy's: which tags are its form."""

    @property
    def completions(self) -> tuple[str, ...]:
        """Texts that the policy wrote, turn by turn, each up to its action's closing tag."""
        return tuple(segment.text for segment in self.segments if segment.kind == "completion")


Reward = Callable[[Outcome], float]

REWARDS: Registry[Reward] = Registry("reward")

CORRECT_WELL_FORMED = 1.0
CORRECT_ILL_FORMED = 0.8
WRONG_WELL_FORMED = 0.2
WRONG_ILL_FORMED = 0.1


def outcome_of(question: Question, rollout: Rollout) -> Outcome:
    """Return the outcome of a finished rollout, cut at ``limits.max_trajectory_tokens`` after the prompt.

    An answer that ends past the cut is none, as in the reference, which decodes the cut trajectory.

    Raises:
        ValueError: the rollout is still open.
    """
    if rollout.status is None:
        raise ValueError("an open rollout has no outcome yet")
    prompt, *rest = rollout.segments
    kept, left = [prompt], rollout.limits.max_trajectory_tokens
    for segment in rest:
        left -= len(segment.ids)
        if left < 0:
            break
        kept.append(segment)
    return Outcome(
        question=question.question,
        golden_answers=tuple(question.golden_answers),
        answer=rollout.answer if left >= 0 else None,
        status=rollout.status,
        segments=tuple(kept),
        profile=rollout.profile,
    )


def register(name: str) -> Callable[[Reward], Reward]:
    """Return a decorator that makes a reward known as ``name``.

    Raises:
        ValueError: another function has that name, or it contains a colon, which marks an import path.
    """
    if ":" in name:
        raise ValueError(f"a reward's name has no colon: {name!r}")
    return REWARDS.register(name)


def reward_named(name: str) -> Reward:
    """Return the reward registered as ``name``, or the function at ``module:function``.

    Raises:
        ConfigurationError: there is none, or the module can't be imported.
    """
    if ":" not in name:
        try:
            return REWARDS.named(name)
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}, or name a module:function") from None
    module, _, attribute = name.partition(":")
    try:
        reward: Reward = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigurationError(f"the reward {name!r} can't be imported: {error}") from error
    if not callable(reward):
        raise ConfigurationError(f"the reward {name!r} is no function")
    return reward


@register("exact_match")
def exact_match_reward(outcome: Outcome) -> float:
    """Return 1 if the answer equals a golden answer after normalization, else 0. The paper's (section 3.4)."""
    return float(exact_match(outcome.answer, outcome.golden_answers))


@register("sub_em")
def sub_em_reward(outcome: Outcome) -> float:
    """Return 1 if a golden answer is a substring of the answer after normalization, else 0."""
    return float(sub_exact_match(outcome.answer, outcome.golden_answers))


@register("format_v0_3")
def format_reward_v0_3(outcome: Outcome) -> float:
    """Reward exact match and form, as in the reference's v0.3 recipes (``qa_em_format.py``; arXiv 2505.15117).

    ============ =========== ==========
    answer       well-formed ill-formed
    ============ =========== ==========
    correct      1           0.8
    wrong, none  0.2         0.1
    ============ =========== ==========

    No answer is ill-formed, so 0.1: the reference, whose extractor reads the prompt's example, gives the same.
    """
    well_formed = is_well_formed(outcome)
    if exact_match(outcome.answer, outcome.golden_answers):
        return CORRECT_WELL_FORMED if well_formed else CORRECT_ILL_FORMED
    return WRONG_WELL_FORMED if well_formed else WRONG_ILL_FORMED


@register("random")
def random_reward(outcome: Outcome) -> float:
    """Return 0 or 1, each for half of all trajectories, whatever they say: the control of arXiv 2506.10947.

    The trajectory's own ids decide, so a run that resumes is given what it was given before. Rollouts of the same ids
    have the same reward.
    """
    ids = " ".join(str(token) for segment in outcome.segments for token in segment.ids)
    return float(sha256(ids.encode()).digest()[0] % 2)


def is_well_formed(outcome: Outcome) -> bool:
    """Return whether every turn is one thought and then one action, and the last action is an answer.

    Thought and action are blocks of the profile's tags; between them there is only white space, and inside them none of
    its tags. Where a profile has no tags for thoughts or answers, plain text without any tag is one. Only what the
    policy wrote is judged. The reference reads observations as well, so there a passage with tags in it, or one whose
    ``</information>`` fell to the length limit, makes a trajectory ill-formed; and it knows no trajectory without
    Qwen's chat template.
    """
    form, action = _turn(outcome.profile.tags), outcome.profile.action
    kinds = [action(text)[0] if form.fullmatch(text) else "invalid" for text in outcome.completions]
    return bool(kinds) and "invalid" not in kinds and kinds[-1] == "answer"


@lru_cache(maxsize=16)
def _turn(tags: Tags) -> re.Pattern[str]:
    """Compile the form of a turn."""
    text = rf"(?:(?!{'|'.join(map(re.escape, tags.all))}).)*"

    def block(pair: Pair) -> str:
        return rf"{re.escape(pair.open)}{text}{re.escape(pair.close)}"

    thought = text if tags.think is None else rf"\s*{block(tags.think)}\s*"
    answer = "" if tags.answer is None else block(tags.answer)
    return re.compile(rf"{thought}(?:{block(tags.search)}|{answer})\s*", re.DOTALL)
