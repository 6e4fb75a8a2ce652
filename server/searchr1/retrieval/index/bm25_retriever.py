"""BM25 over an index on this machine: ``LocalIndex`` answers batches, ``LocalRetriever`` makes a retriever of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import bm25s  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from searchr1.errors import CorpusError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import SearchOutcome
from searchr1.retrieval.index.batched import BatchedRetriever
from searchr1.retrieval.index.bm25 import BM25, IndexInfo, build_index, default_backend, load_manifest
from searchr1.retrieval.index.storage import PassageStore
from searchr1.retrieval.index.terms import Tokenizer

__all__ = ["IndexInfo", "LocalIndex", "LocalRetriever", "build_index"]

MAX_QUERY_TERMS = 256
"""Terms of one query that are scored; each costs up to a pass over the corpus, so the rest is ignored."""

Backend = Literal["numpy", "numba"]


class LocalIndex:
    """An open index, memory-mapped, for reading from any number of threads."""

    def __init__(
        self,
        info: IndexInfo,
        ranker: Any,
        passages: PassageStore,
    ) -> None:
        self.info = info
        self._ranker, self._passages = ranker, passages
        self._tokenizer = Tokenizer(info.tokenizer)

    @classmethod
    def open(cls, path: Path, *, backend: Backend | None = None) -> "LocalIndex":
        """Open the index folder ``path``; raise ``CorpusError`` if it is missing, damaged or of another format.

        ``backend`` defaults to numpy for small corpora, and for large ones to numba: it takes seconds to compile here,
        but then is many times faster and runs beside other Python threads.
        """
        info = load_manifest(path)
        try:
            backend = backend or default_backend(info.passages)
            ranker = bm25s.BM25.load(path / BM25, mmap=True, backend=backend)
            passages = PassageStore(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"the index {path} cannot be opened: {error}") from error
        index = cls(info, ranker, passages)
        index._rank([[next(iter(ranker.vocab_dict))]], 1)  # compiles, so that no search has to wait for it
        return index

    def __len__(self) -> int:
        return self.info.passages

    def search_batch(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """Return up to ``k`` passages for each query, best first, scored by BM25; equal scores stay in corpus order.

        Fewer come back when fewer share a term with the query: none for a query without a known term. (Which of
        the passages that tie for the last place come back is also corpus order with numpy, but not with numba.)
        """
        k = min(k, self.info.passages)
        known = self._ranker.vocab_dict
        batch = [[t for t in self._tokenizer.terms(query) if t in known][:MAX_QUERY_TERMS] for query in queries]
        searchable = [terms for terms in batch if terms] if k > 0 else []
        ranked = iter(self._rank(searchable, k))
        return [self._passages_of(*next(ranked)) if terms and k > 0 else [] for terms in batch]

    def _rank(
        self, batch: list[list[str]], k: int
    ) -> list[tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.float32]]]:
        if not batch:
            return []
        if self._ranker.backend == "numba":
            found = self._ranker.retrieve(batch, k=k, show_progress=False)
            return list(zip(found.documents, found.scores, strict=True))
        scores = (self._ranker.get_scores(terms) for terms in batch)
        return [(rows := _top_rows(row_scores, k), row_scores[rows]) for row_scores in scores]

    def _passages_of(self, rows: npt.NDArray[np.integer[Any]], scores: npt.NDArray[np.float32]) -> list[Passage]:
        ranked = sorted(zip(scores.tolist(), rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [self._passages.passage(row, score) for score, row in ranked if score > 0]


def _top_rows(scores: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """The rows of the ``k`` highest scores; of equal scores the lowest rows, whatever the CPU's partition does."""
    threshold = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > threshold)
    level = np.flatnonzero(scores == threshold)[: k - len(above)]
    return np.concatenate((above, level))


class LocalRetriever:
    """A ``Retriever`` over a ``LocalIndex``. Searches that wait while all workers are busy run as one batch.

    ``max_workers`` bounds the threads, ``max_batch`` the searches of one pass. Use it from one event loop, and close it
    with ``aclose``.
    """

    def __init__(self, index: LocalIndex, *, name: str = "index", max_workers: int = 2, max_batch: int = 64) -> None:
        self.index, self.name = index, name
        # A search takes a millisecond: waiting for company would cost more than it saves.
        self._batched = BatchedRetriever(
            index.search_batch, name=name, max_batch=max_batch, max_concurrent=max_workers, wait_s=0.0
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        return await self._batched.search(query, k, deadline_s)

    async def aclose(self) -> None:
        """Refuse new searches, finish those under way, and release the threads."""
        await self._batched.aclose()
