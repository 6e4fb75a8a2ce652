"""``rag``: one retrieval with the question, then the answer."""

from typing import TYPE_CHECKING

from searchr1.evaluation.methods.registry import register

if TYPE_CHECKING:
    from searchr1.evaluation.baselines.trial import Trial


@register("rag", title="RAG", order=3, paper_row=5, searches=True)
async def rag(trial: "Trial") -> None:
    """Search with the question, then ask for the answer."""
    from searchr1.evaluation.baselines import plain, trained

    await trial.answer_by({"plain": plain.rag, "search-r1": trained.rag})
