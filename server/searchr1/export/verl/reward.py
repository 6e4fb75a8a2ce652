"""Search-R1's rewards for verl, as Search-R1 Serve computes them. Needs the standard library alone.

verl calls ``compute_score``. The loop of Search-R1 Serve tells what the policy wrote, turn by turn, in
``extra_info["searchr1_completions"]``, and these texts alone are judged. Without them they are found in
``solution_str``, which is exact unless a passage holds the loop's own tags or an observation was cut.
"""

import json
import re
import string
from collections.abc import Sequence
from typing import Any

REWARD = "exact_match"
"""``exact_match``, ``sub_em`` or ``format_v0_3``."""

COMPLETIONS = "searchr1_completions"
EXAMPLE = "For example, <answer> Beijing </answer>. Question:"
RETRY = (
    "\nMy previous action is invalid. "
    "If I want to search, I should put the query between <search> and </search>. "
    "If I want to give the final answer, I should put the answer between <answer> and </answer>. Let me try again.\n"
)

_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
_OBSERVATION = r"(?<=</search>)\n\n<information>(?:(?:(?!</search>).)*?</information>\n\n|.*?(?=<think>|\Z))"
_PUT_IN = re.compile(f"{_OBSERVATION}|{re.escape(RETRY)}", re.DOTALL)
_PROMPT = re.compile(
    r"\A(?:(?!</).)*?Answer the given question\. You must conduct.{0,700}?"
    + re.escape(EXAMPLE)
    + r"(?:(?:(?!</).)*?<\|im_start\|>assistant\n|[^\n]*\n(?:assistant\n)?)",
    re.DOTALL,
)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_TEXT = r"(?:(?!</?(?:think|search|information|answer)>).)*"
_WELL_FORMED = re.compile(rf"\s*<think>{_TEXT}</think>\s*<(search|answer)>{_TEXT}</\1>\s*", re.DOTALL)


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: dict[str, Any] | None = None,
    reward: str | None = None,
    **_: Any,
) -> float:
    """Return the reward of one trajectory.

    Args:
        data_source: not looked at; every set has the same reward.
        solution_str: the trajectory's text, with or without the prompt before it.
        ground_truth: ``{"target": [golden answers]}``, or the golden answers.
        extra_info: may hold ``searchr1_completions``, a JSON list of the policy's own texts, turn by turn.
        reward: a name to use in place of ``REWARD``.
    """
    told = (extra_info or {}).get(COMPLETIONS)
    completions = completions_of(solution_str) if told is None else json.loads(told)
    return REWARDS[reward or REWARD](completions, _golden(ground_truth))


def completions_of(text: str) -> list[str]:
    """Return the policy's own text, turn by turn: without prompt, observations and retry texts."""
    prompt = _PROMPT.match(text)
    return [turn for turn in _PUT_IN.split(text[prompt.end() :] if prompt else text) if turn]


def answer_of(completions: Sequence[str]) -> str | None:
    """Return the answer that ended the trajectory, or None. The loop stops at it, so it is the last turn's action."""
    action = _ACTION.search(completions[-1]) if completions else None
    return action[2].strip() if action and action[1] == "answer" else None


def normalize(text: str) -> str:
    """Lowercase, drop ASCII punctuation, drop a/an/the, collapse white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_DROP_PUNCTUATION)).split())


def exact_match(completions: Sequence[str], golden_answers: Sequence[str]) -> float:
    """Return 1 if the answer equals a golden answer after normalization, else 0."""
    answer = answer_of(completions)
    return float(answer is not None and normalize(answer) in map(normalize, golden_answers))


def sub_em(completions: Sequence[str], golden_answers: Sequence[str]) -> float:
    """Return 1 if a golden answer is a substring of the answer after normalization, else 0."""
    answer = answer_of(completions)
    return float(answer is not None and any(normalize(golden) in normalize(answer) for golden in golden_answers))


def format_v0_3(completions: Sequence[str], golden_answers: Sequence[str]) -> float:
    """Return exact match with form: 1 and 0.8 for a right answer, 0.2 and 0.1 for a wrong one or none."""
    well_formed = is_well_formed(completions)
    if exact_match(completions, golden_answers):
        return 1.0 if well_formed else 0.8
    return 0.2 if well_formed else 0.1


def is_well_formed(completions: Sequence[str]) -> bool:
    """Return True if every turn is one think block and then one action, and the last action is an answer."""
    turns = [_WELL_FORMED.fullmatch(text) for text in completions]
    return bool(turns) and all(turns) and turns[-1] is not None and turns[-1][1] == "answer"


def _golden(ground_truth: Any) -> list[str]:
    target = ground_truth["target"] if isinstance(ground_truth, dict) else ground_truth
    return [target] if isinstance(target, str) else [str(answer) for answer in target]


REWARDS = {"exact_match": exact_match, "sub_em": sub_em, "format_v0_3": format_v0_3}
