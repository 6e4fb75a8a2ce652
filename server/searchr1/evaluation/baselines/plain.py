"""Shared parts of the baselines in the ``plain`` format: a prompt in words, the answer read from its tags.

What each method asks for follows the baselines of the paper (FlashRAG's naive and one-retrieval prompts, IRCoT's one
thought at a time); the wording is this repository's, and no examples are shown to the model. Every answer stands inside
``<answer>`` tags, so that one reader serves all methods.
"""

from collections.abc import Callable, Sequence

from searchr1.data.questions import asked
from searchr1.evaluation.baselines.trial import Trial
from searchr1.loop.profiles.search_r1 import listed
from searchr1.loop.sanitize import neutralize
from searchr1.loop.types import Passage

OPEN, CLOSE = "<answer>", "</answer>"
"""The tags of the ``plain`` format's own answers, whatever profile the policy has."""
SHORT_ANSWER = (
    f"Write the answer between {OPEN} and {CLOSE}, as few words as possible and nothing else. "
    f"For example, {OPEN} Beijing {CLOSE}."
)


def asking(question: str) -> str:
    """Return the line at a prompt's end that holds the question."""
    return f"Question: {asked(question)}\n"


def fitting(trial: Trial, passages: Sequence[Passage], prompt: Callable[[str, Sequence[Passage]], str]) -> list[int]:
    """Return the ids of ``prompt`` with as many of ``passages`` as leave room for what the model writes."""
    limits = trial.options.limits
    room = limits.max_context_tokens - limits.max_completion_tokens
    passages = neutralize(passages)  # A control token's text in a user turn would be read as one.
    while True:
        ids = trial.prompt(prompt(trial.question, passages))
        if len(ids) <= room or not passages:
            break
        passages = passages[:-1]
    observed = len(trial.encode(listed(passages)))
    trial.outcome.observation_tokens, trial.outcome.prompt_tokens = observed, len(ids) - observed
    return ids
