"""``ircot``: reasoning and retrieval in turn, then the answer (arXiv 2212.10509)."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial
    from searchr1.loop.types import Passage

MAX_THOUGHT_TOKENS = 100
"""Bound of one thought, a sentence."""
MAX_PASSAGES = 15
"""Passages that are kept, as in its paper; the first found stay."""

_SENTENCE_END = re.compile(r"\w{3}[.!?][\"')\]]*(?=\s)")
"""Three letters or digits before the mark: initials, ``Mr.`` and ``St.`` end no sentence."""


@register("ircot", title="IRCoT", order=4, paper_row=3, searches=True)
async def ircot(trial: "Trial") -> None:
    """Search with the question, then with each thought of the model; then ask for the answer."""
    await trial.answer_by({"plain": _plain, "search-r1": _trained})


async def _plain(trial: "Trial") -> str | None:
    """Return the answer after thoughts of one sentence each, up to one that says so or the last turn."""
    from searchr1.evaluation.baselines.plain import CLOSE, OPEN, fitting

    passages: tuple[Passage, ...] = ()
    thoughts: list[str] = []
    query = trial.question
    for _ in range(max(1, trial.options.limits.max_turns)):
        passages = _merged(passages, await trial.search(query))
        context = fitting(trial, passages, _prompt)
        told = trial.encode(" ".join(("Thought:", *thoughts)))
        text = await trial.write([*context, *told], ("\n",), max_tokens=MAX_THOUGHT_TOKENS)
        query = first_sentence(text)
        if not query:
            break
        thoughts.append(query)
        if "answer is" in query.lower():
            break
    told = trial.encode(" ".join(("Thought:", *thoughts)) + f"\n{OPEN}")
    return await trial.forced_answer([*fitting(trial, passages, _prompt), *told], CLOSE)


def _prompt(question: str, passages: "Sequence[Passage]") -> str:
    """Ask for the reasoning sentence by sentence; "the answer is" marks its end."""
    from searchr1.evaluation.baselines.plain import asking
    from searchr1.loop.profiles.search_r1 import listed

    return (
        "Work out the answer to the question from the documents below, one short sentence of reasoning at a time. "
        "Each sentence states one fact that leads on towards the answer. "
        'Once nothing is missing, begin the last sentence with "So the answer is".\n\n'
        f"{listed(passages)}\n{asking(question)}"
    )


def first_sentence(text: str) -> str:
    """Return the first sentence of ``text``, or all of it where none ends.

    >>> first_sentence(" J. R. R. Tolkien wrote it. He was born in Bloemfontein. ")
    'J. R. R. Tolkien wrote it.'
    """
    text = text.strip()
    end = _SENTENCE_END.search(text)
    return text if end is None else text[: end.end()]


def _merged(known: "tuple[Passage, ...]", found: "Sequence[Passage]") -> "tuple[Passage, ...]":
    """Return each passage once."""
    by_text = {passage.contents: passage for passage in (*known, *found)}
    return tuple(by_text.values())[:MAX_PASSAGES]


async def _trained(trial: "Trial") -> str | None:
    """Return the answer after a search with the question and one with each thought, until the model answers itself."""
    from searchr1.evaluation.baselines.trained import (
        UNKNOWN,
        read_answer,
        searched,
        tags_of,
        think_and_answer,
        words_of,
    )

    profile, (_, answer) = trial.options.profile, tags_of(trial)
    context = trial.trained_prompt()
    context += await searched(trial, UNKNOWN, trial.question)
    for _ in range(max(1, trial.options.limits.max_turns) - 1):
        text = await trial.write(context, (answer.close, profile.tags.search.close))
        before, opened, content = text.partition(answer.open)
        if opened and content.endswith(answer.close):
            return read_answer(trial, content.removesuffix(answer.close))
        thought = words_of(trial, before)
        context += await searched(trial, thought, thought)
    return await think_and_answer(trial, context)
