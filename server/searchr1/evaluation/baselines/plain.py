"""The baselines in the ``plain`` format: a prompt in words, the answer read from its tags."""

import re
from collections.abc import Sequence

from searchr1.evaluation.baselines import prompts
from searchr1.evaluation.baselines.prompts import CLOSE, OPEN
from searchr1.evaluation.baselines.trial import Trial
from searchr1.loop.profiles.search_r1 import listed
from searchr1.loop.sanitize import neutralize
from searchr1.loop.types import Passage

MAX_THOUGHT_TOKENS = 100
"""Of one sentence of IRCoT."""
MAX_PASSAGES = 15
"""That IRCoT keeps, as in its paper; the first found stay."""

_SENTENCE_END = re.compile(r"\w{3}[.!?][\"')\]]*(?=\s)")
"""Three letters or digits before the mark: initials, ``Mr.`` and ``St.`` end no sentence."""


async def direct(trial: Trial) -> str | None:
    """Question, then answer."""
    return await trial.forced_answer([*trial.prompt(prompts.direct(trial.question)), *trial.encode(OPEN)], CLOSE)


async def chain_of_thought(trial: Trial) -> str | None:
    """Question, then reasoning, then answer."""
    context = trial.prompt(prompts.chain_of_thought(trial.question))
    thought, opened, answer = (await trial.write(context, (CLOSE,))).partition(OPEN)
    if opened and answer.endswith(CLOSE):
        return answer.removesuffix(CLOSE).strip() or None
    return await trial.forced_answer([*context, *trial.encode(f"{thought.rstrip()}\n{OPEN}")], CLOSE)


async def rag(trial: Trial) -> str | None:
    """One retrieval with the question, then answer."""
    passages = await trial.search(trial.question)
    context = _fitting(trial, passages, prompts.with_passages)
    return await trial.forced_answer([*context, *trial.encode(OPEN)], CLOSE)


async def ircot(trial: Trial) -> str | None:
    """A retrieval with the question, then thoughts, one sentence each, and a retrieval with each; then answer."""
    passages: tuple[Passage, ...] = ()
    thoughts: list[str] = []
    query = trial.question
    for _ in range(max(1, trial.options.limits.max_turns)):
        passages = _merged(passages, await trial.search(query))
        context = _fitting(trial, passages, prompts.next_thought)
        told = trial.encode(" ".join(("Thought:", *thoughts)))
        text = await trial.write([*context, *told], ("\n",), max_tokens=MAX_THOUGHT_TOKENS)
        query = first_sentence(text)
        if not query:
            break
        thoughts.append(query)
        if "answer is" in query.lower():
            break
    told = trial.encode(" ".join(("Thought:", *thoughts)) + f"\n{OPEN}")
    return await trial.forced_answer([*_fitting(trial, passages, prompts.next_thought), *told], CLOSE)


def first_sentence(text: str) -> str:
    """The first sentence of ``text``, or all of it where none ends.

    >>> first_sentence(" J. R. R. Tolkien wrote it. He was born in Bloemfontein. ")
    'J. R. R. Tolkien wrote it.'
    """
    text = text.strip()
    end = _SENTENCE_END.search(text)
    return text if end is None else text[: end.end()]


def _merged(known: tuple[Passage, ...], found: Sequence[Passage]) -> tuple[Passage, ...]:
    """Each passage once."""
    by_text = {passage.contents: passage for passage in (*known, *found)}
    return tuple(by_text.values())[:MAX_PASSAGES]


def _fitting(trial: Trial, passages: Sequence[Passage], ask: prompts.AsksWithPassages) -> list[int]:
    """The prompt, with as many of ``passages`` as leave room in the context for what the model writes."""
    limits = trial.options.limits
    room = limits.max_context_tokens - limits.max_completion_tokens
    passages = neutralize(passages)  # A control token's text in a user turn would be read as one.
    while True:
        ids = trial.prompt(ask(trial.question, passages))
        if len(ids) <= room or not passages:
            break
        passages = passages[:-1]
    observed = len(trial.encode(listed(passages)))
    trial.outcome.observation_tokens, trial.outcome.prompt_tokens = observed, len(ids) - observed
    return ids
