"""``cot``: reasoning and then the answer, from the model's own knowledge."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("cot", title="CoT", order=2, paper_row=2, searches=False)
async def chain_of_thought(trial: "Trial") -> None:
    """Ask for reasoning, then for the answer."""
    await trial.answer_by({"plain": _plain, "search-r1": _trained})


async def _plain(trial: "Trial") -> str | None:
    from searchr1.evaluation.baselines.plain import CLOSE, OPEN, SHORT_ANSWER, asking

    prompt = f"Answer the question. Reason step by step first. {SHORT_ANSWER}\n\n{asking(trial.question)}"
    context = trial.prompt(prompt)
    thought, opened, answer = (await trial.write(context, (CLOSE,))).partition(OPEN)
    if opened and answer.endswith(CLOSE):
        return answer.removesuffix(CLOSE).strip() or None
    return await trial.forced_answer([*context, *trial.encode(f"{thought.rstrip()}\n{OPEN}")], CLOSE)


async def _trained(trial: "Trial") -> str | None:
    from searchr1.evaluation.baselines.trained import think_and_answer

    return await think_and_answer(trial, trial.trained_prompt())
