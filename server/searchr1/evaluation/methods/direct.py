"""``direct``: the answer from the model's own knowledge, at once."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("direct", title="Direct", order=1, paper_row=1, searches=False)
async def direct(trial: "Trial") -> None:
    """Ask for the answer alone."""
    from searchr1.evaluation.baselines import plain, trained

    await trial.answer_by({"plain": plain.direct, "search-r1": trained.direct})
