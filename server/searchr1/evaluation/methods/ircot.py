"""``ircot``: reasoning and retrieval in turn, then the answer (arXiv 2212.10509)."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("ircot", title="IRCoT", order=4, paper_row=3, searches=True)
async def ircot(trial: "Trial") -> None:
    """Search with the question, then with each thought of the model; then ask for the answer."""
    from searchr1.evaluation.baselines import plain, trained

    await trial.answer_by({"plain": plain.ircot, "search-r1": trained.ircot})
