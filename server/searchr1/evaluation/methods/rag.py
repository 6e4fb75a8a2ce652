"""``rag``: one retrieval with the question, then the answer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial
    from searchr1.loop.types import Passage


@register("rag", title="RAG", order=3, paper_row=5, searches=True)
async def rag(trial: "Trial") -> None:
    """Search with the question, then ask for the answer."""
    await trial.answer_by({"plain": _plain, "search-r1": _trained})


async def _plain(trial: "Trial") -> str | None:
    from searchr1.evaluation.baselines.plain import CLOSE, OPEN, fitting

    passages = await trial.search(trial.question)
    return await trial.forced_answer([*fitting(trial, passages, _prompt), *trial.encode(OPEN)], CLOSE)


def _prompt(question: str, passages: "Sequence[Passage]") -> str:
    from searchr1.evaluation.baselines.plain import SHORT_ANSWER, asking
    from searchr1.loop.profiles.search_r1 import listed

    return (
        f"Answer the question with the help of the documents below. {SHORT_ANSWER}\n\n"
        f"{listed(passages)}\n{asking(question)}"
    )


async def _trained(trial: "Trial") -> str | None:
    """Return the answer after one search with the question and a thought on what it found."""
    from searchr1.evaluation.baselines.trained import UNKNOWN, searched, think_and_answer

    context = trial.trained_prompt()
    context += await searched(trial, UNKNOWN, trial.question)
    return await think_and_answer(trial, context)
