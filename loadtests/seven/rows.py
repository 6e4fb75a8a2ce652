"""All rows of the table, in its order, and the comparisons that the page draws from them."""

from dataclasses import dataclass, replace
from typing import Literal

from searchr1.evaluation.baselines.formats import BaselineFormat
from searchr1.evaluation.methods.registry import SEARCH_R1

Searched = Literal["none", "bm25", "dense", "oracle"]
"""What a row's searches find; ``oracle`` are the passages that answer the question."""

BASE = "base"
"""The checkpoint before any training."""
_TITLES: dict[Searched, str] = {"none": "–", "bm25": "BM25", "dense": "dense", "oracle": "gold"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a method, on a checkpoint, with a retriever."""

    name: str
    title: str
    method: str
    """An evaluation method's name."""
    searched: Searched
    checkpoint: str = BASE
    """The name by which the command line gives the checkpoint's folder."""
    baseline_format: BaselineFormat = "plain"
    max_searches: int | None = None
    top_k: int = 3
    """Passages per search."""
    how: str = ""
    """How its checkpoint was made, for the page."""

    @property
    def retriever_title(self) -> str:
        """The retriever, as the page writes it."""
        return _TITLES[self.searched]


def _both(row: Row) -> tuple[Row, Row]:
    """Return ``row`` with BM25, and with the dense index."""
    return (
        replace(row, name=f"{row.name}-bm25", searched="bm25"),
        replace(row, name=f"{row.name}-dense", searched="dense"),
    )


def _looped(name: str, title: str, how: str) -> Row:
    """Return a row of the loop that serves, on a checkpoint of the row's own name."""
    return Row(name, title, SEARCH_R1, "bm25", checkpoint=name, how=how)


def _closed(name: str, title: str, how: str) -> Row:
    """Return a row whose policy was trained without searches, and may make none."""
    return replace(_looped(name, title, how), searched="none", max_searches=0)


def _rag(name: str, title: str, checkpoint: str = BASE) -> Row:
    """Return a row of RAG: in plain words, or of a trained policy in its own format."""
    return Row(name, title, "rag", "bm25", checkpoint, "plain" if checkpoint == BASE else "search-r1")


def _gold(row: Row) -> Row:
    """Return the ceiling of a row of RAG: the passages that answer, however many, in the place of those found."""
    return replace(row, searched="oracle", top_k=4)


ROWS: tuple[Row, ...] = (
    Row("direct", "Direct", "direct", "none"),
    Row("cot", "CoT", "cot", "none"),
    *_both(Row("ircot", "IRCoT-style", "ircot", "bm25")),
    *_both(_rag("rag", "RAG")),
    _gold(_rag("oracle", "Gold passages in the prompt")),
    _closed("sft", "SFT", "fine-tuned on answers, without search"),
    _closed("r1", "R1", "RL without search"),
    *_both(_looped("form", "Start, form alone", "a short SFT on form")),
    *_both(_looped("hops", "Start, a search for each hop", "SFT on decompositions")),
    *_both(_rag("rag-form", "RAG by the start of form", "form")),
    _gold(_rag("oracle-form", "Gold passages, the start of form", "form")),
    *_both(_looped("rejection", "Rejection sampling", "SFT on the start's own right runs")),
    *_both(_looped("ppo", "Search-R1, PPO", "RL by PPO from the start")),
    *_both(_looped("grpo", "Search-R1, GRPO", "RL by GRPO from the start")),
    *_both(_rag("rag-grpo", "RAG by the GRPO policy", "grpo")),
    _gold(_rag("oracle-grpo", "Gold passages, the GRPO policy", "grpo")),
)


def row_named(name: str) -> Row:
    """Return a row. Raises ``ValueError`` where there is none."""
    found = next((row for row in ROWS if row.name == name), None)
    if found is None:
        raise ValueError(f"there is no row {name!r}; there are {', '.join(row.name for row in ROWS)}")
    return found


@dataclass(frozen=True, slots=True)
class Versus:
    """A comparison on the average of the sets: the best of ``ours`` over the best of ``theirs``, both rows by name."""

    title: str
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    goal: float | None = None
    """Relative gain that is aimed at; None: any that lies outside its interval."""


_SEARCH_R1 = ("ppo-bm25", "grpo-bm25")
COMPARISONS: tuple[Versus, ...] = (
    Versus("RAG over direct answers", ("rag-bm25",), ("direct",)),
    Versus("Search-R1 over RAG", _SEARCH_R1, ("rag-bm25", "rag-form-bm25", "rag-grpo-bm25"), goal=0.2),
    Versus("Search-R1 over SFT", _SEARCH_R1, ("sft",)),
    Versus("Search-R1 over R1", _SEARCH_R1, ("r1",)),
    Versus("Search-R1 over rejection sampling", _SEARCH_R1, ("rejection-bm25",)),
    Versus("Search-R1 over its start", _SEARCH_R1, ("form-bm25",)),
    Versus("PPO over GRPO", ("ppo-bm25",), ("grpo-bm25",)),
    Versus("RAG, dense over BM25", ("rag-dense",), ("rag-bm25",)),
    Versus("Search-R1, dense over BM25", ("ppo-dense", "grpo-dense"), _SEARCH_R1),
)
"""With BM25, where the title says no other: the stronger retriever on these questions. RAG is the best of what any of
the policies makes of one retrieval."""
