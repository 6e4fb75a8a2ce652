"""``cot``: reasoning and then the answer, from the model's own knowledge."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("cot", title="CoT", order=2, paper_row=2, searches=False)
async def chain_of_thought(trial: "Trial") -> None:
    """Ask for reasoning, then for the answer."""
    from searchr1.evaluation.baselines import plain, trained

    await trial.answer_by({"plain": plain.chain_of_thought, "search-r1": trained.chain_of_thought})
