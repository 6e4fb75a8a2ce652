"""Gold passages: those that answer a question, in the place of what a search finds. They show where the ceiling is."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.seven.questions import Asked
from searchr1.data.questions import asked as as_asked
from searchr1.evaluation.metrics import normalize
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.retrieval.index.corpus import read_corpus

MAX_PASSAGES = 4
"""Passages of one question; MuSiQue's longest chains need four."""


class OracleRetriever:
    """A ``Retriever`` that knows the questions and finds what answers them, however few passages are asked for."""

    def __init__(self, passages: Mapping[str, Sequence[Passage]]) -> None:
        """Take passages by question."""
        self._passages = {as_asked(question): tuple(found) for question, found in passages.items()}

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        return Found(self._passages.get(as_asked(query), ()), provider="oracle")


def oracle_passages(questions: Sequence[Asked], corpus: Path) -> dict[str, list[Passage]]:
    """Return by question the passages that answer it, at most ``MAX_PASSAGES``: the gold ones, in its set's order.

    Where its set names articles alone, those of their passages that hold an answer count, and without such all of
    them. A question without any is left out.

    Raises:
        CorpusError: the corpus can't be read.
    """
    gold = {passage for one in questions for passage in one.gold_ids}
    titles = {title for one in questions if not one.gold_ids for title in one.titles}
    by_id: dict[str, Passage] = {}
    by_title: dict[str, list[Passage]] = defaultdict(list)
    for record in read_corpus(corpus):
        passage = Passage.from_contents(record.contents, id=record.id, url=record.url)
        if record.id in gold:
            by_id[record.id] = passage
        if (title := passage.title.strip('"')) in titles:
            by_title[title].append(passage)
    found = {one.question.question: _of(one, by_id, by_title)[:MAX_PASSAGES] for one in questions}
    return {question: passages for question, passages in found.items() if passages}


def _of(one: Asked, by_id: Mapping[str, Passage], by_title: Mapping[str, Sequence[Passage]]) -> list[Passage]:
    if one.gold_ids:
        return [by_id[passage] for passage in one.gold_ids if passage in by_id]
    named = [passage for title in one.titles for passage in by_title.get(title, ())]
    answers = [normalized for answer in one.question.golden_answers if (normalized := normalize(answer))]
    holding = [passage for passage in named if any(answer in normalize(passage.contents) for answer in answers)]
    return holding or named
