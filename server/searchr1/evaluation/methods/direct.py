"""``direct``: the answer from the model's own knowledge, at once."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("direct", title="Direct", order=1, paper_row=1, searches=False)
async def direct(trial: "Trial") -> None:
    """Ask for the answer alone."""
    await trial.answer_by({"plain": _plain, "search-r1": _trained})


async def _plain(trial: "Trial") -> str | None:
    from searchr1.evaluation.baselines.plain import CLOSE, OPEN, SHORT_ANSWER, asking

    prompt = f"Answer the question. {SHORT_ANSWER}\n\n{asking(trial.question)}"
    return await trial.forced_answer([*trial.prompt(prompt), *trial.encode(OPEN)], CLOSE)


async def _trained(trial: "Trial") -> str | None:
    """Return the answer after a thought of ours."""
    from searchr1.evaluation.baselines.trained import KNOWN, answer_after

    return await answer_after(trial, trial.trained_prompt(), KNOWN)
