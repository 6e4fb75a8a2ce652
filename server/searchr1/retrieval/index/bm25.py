"""BM25 over an index on this machine: built once from a corpus, opened memory-mapped.

A folder with the passages and the manifest (counts, settings) that ``storage.py`` describes, and ``bm25/`` with the
arrays of the ``bm25s`` library.
Term ids are held flat in memory while building, passage texts never.
"""

from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import bm25s  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from searchr1.errors import CorpusError
from searchr1.loop.types import Passage
from searchr1.retrieval.index.batched import BatchedRetriever
from searchr1.retrieval.index.corpus import Corpus
from searchr1.retrieval.index.ranking import top_rows
from searchr1.retrieval.index.storage import (
    PassageStore,
    PassageWriter,
    new_folder,
    progress_bar,
    read_manifest,
    write_manifest,
)
from searchr1.retrieval.index.terms import TermSettings, TermSplitter

FORMAT = 2
_FORMATS = (FORMAT, 1)
"""Formats that are read; 1 knows one analyzer of terms, and does not name it."""
BM25 = "bm25"
_NUMBA_FROM = 100_000
"""Passages from which compiling the numba kernels (seconds) is repaid."""
MAX_QUERY_TERMS = 256
"""Terms of one query that are scored; each costs up to a pass over the corpus, so the rest is ignored."""

Backend = Literal["numpy", "numba"]


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """Counts and settings of an index: ``terms`` are distinct search terms, ``k1`` and ``b`` BM25's parameters."""

    passages: int
    terms: int
    tokens: int
    k1: float
    b: float
    tokenizer: TermSettings


def build_index(
    corpus: Path,
    out: Path,
    *,
    progress: bool = True,
    overwrite: bool = False,
    tokenizer: TermSettings | None = None,
    k1: float = 0.9,
    b: float = 0.4,
    on_ignored: Callable[[Collection[str]], None] = lambda _: None,
) -> IndexInfo:
    """Index the ``corpus`` into the folder ``out``, which appears complete or not at all.

    ``k1`` and ``b`` default to Pyserini's values, which upstream's BM25 server uses. The progress bar goes to stderr.
    ``on_ignored`` hears the names of the corpus's fields that the index does not keep.
    Raises ``CorpusError`` for a malformed corpus (file and line named), for an ``out`` that exists (only an index is
    ever replaced, and only with ``overwrite``), and for a disk that refuses.
    """
    with new_folder(out, overwrite=overwrite) as work:
        records = Corpus(corpus)
        info = _build(records, work, tokenizer or TermSettings(), k1, b, progress)
    on_ignored(sorted(records.ignored))
    return info


def _build(corpus: Corpus, work: Path, settings: TermSettings, k1: float, b: float, progress: bool) -> IndexInfo:
    with progress_bar(progress) as bar:
        collected = _collect(corpus, work, TermSplitter(settings), bar)
        rows = _Rows(collected.tokens, collected.starts, lambda: None)
        task = bar.add_task("Scoring terms", total=_Rows.PASSES * len(rows))
        rows.on_row = lambda: bar.advance(task)
        backend = default_backend(len(rows))
        ranker = bm25s.BM25(method="lucene", k1=k1, b=b, backend=backend)
        ranker.scores = ranker.build_index_from_ids(range(len(collected.vocabulary)), rows, show_progress=False)
        ranker.vocab_dict = collected.vocabulary
        ranker.save(work / BM25, show_progress=False)
        bar.update(task, completed=_Rows.PASSES * len(rows))
    info = IndexInfo(len(rows), len(collected.vocabulary), len(collected.tokens), k1, b, settings)
    write_manifest(work, FORMAT, {"bm25s": bm25s.__version__, **asdict(info)})
    return info


def default_backend(passages: int) -> Backend:
    """Return the bm25s backend that suits a corpus of that many passages."""
    return "numba" if passages >= _NUMBA_FROM else "numpy"


@dataclass(frozen=True, slots=True)
class _Collected:
    vocabulary: dict[str, int]
    tokens: "array[int]"
    starts: "array[int]"


def _collect(corpus: Corpus, work: Path, tokenizer: TermSplitter, bar: Progress) -> _Collected:
    """Write the passages and their offsets; return the term ids of all passages, end to end."""
    vocabulary: dict[str, int] = {}
    id_of_word: dict[str, int] = {}
    tokens, starts = array("i"), array("q", [0])
    task = bar.add_task("Reading passages", total=corpus.num_bytes)
    corpus.on_bytes = lambda count: bar.advance(task, count)
    with PassageWriter(work) as passages:
        for record in corpus:
            passages.add(record)
            for word in tokenizer.words(record.contents):
                term_id = id_of_word.get(word)
                if term_id is None:
                    term = tokenizer.term(word)
                    term_id = -1 if term is None else vocabulary.setdefault(term, len(vocabulary))
                    id_of_word[word] = term_id
                if term_id >= 0:
                    tokens.append(term_id)
            starts.append(len(tokens))
    if not vocabulary:
        raise CorpusError(f"the corpus {corpus.path} holds no searchable word")
    return _Collected(vocabulary, tokens, starts)


class _Rows:
    """The passages' term ids, iterated as the list of lists that ``bm25s`` takes, without being one."""

    PASSES = 3

    def __init__(self, tokens: "array[int]", starts: "array[int]", on_row: Callable[[], None]) -> None:
        self._tokens, self._starts, self.on_row = tokens, starts, on_row

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __iter__(self) -> Iterator[list[int]]:
        for row in range(len(self)):
            self.on_row()
            yield self._tokens[self._starts[row] : self._starts[row + 1]].tolist()


def load_manifest(path: Path) -> IndexInfo:
    """Read and check the manifest of the index folder ``path``, sizes of its files included; raise ``CorpusError``."""
    manifest = read_manifest(path, *_FORMATS)
    try:
        counts = {name: manifest[name] for name in ("passages", "terms", "tokens", "k1", "b")}
        return IndexInfo(**counts, tokenizer=TermSettings(**{"analyzer": 1, **manifest["tokenizer"]}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"the manifest of the index {path} is malformed: {error!r}") from error


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
        self._tokenizer = TermSplitter(info.tokenizer)

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

    def retriever(self, *, max_workers: int = 2, max_batch: int = 64) -> BatchedRetriever:
        """Return a ``Retriever`` over this index, for one event loop; close it with ``aclose``.

        ``max_workers`` bounds the threads, ``max_batch`` the searches of one pass.
        """
        # A search takes a millisecond: waiting for company would cost more than it saves.
        return BatchedRetriever(
            self.search_batch, name="index", max_batch=max_batch, max_concurrent=max_workers, wait_s=0.0
        )

    def _rank(
        self, batch: list[list[str]], k: int
    ) -> list[tuple[npt.NDArray[np.integer[Any]], npt.NDArray[np.float32]]]:
        if not batch:
            return []
        if self._ranker.backend == "numba":
            found = self._ranker.retrieve(batch, k=k, show_progress=False)
            return list(zip(found.documents, found.scores, strict=True))
        scores = (self._ranker.get_scores(terms) for terms in batch)
        return [(rows := top_rows(row_scores, k), row_scores[rows]) for row_scores in scores]

    def _passages_of(self, rows: npt.NDArray[np.integer[Any]], scores: npt.NDArray[np.float32]) -> list[Passage]:
        ranked = sorted(zip(scores.tolist(), rows.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
        return [self._passages.passage(row, score) for score, row in ranked if score > 0]
