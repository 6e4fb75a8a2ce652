"""The BM25 index on disk: built once from a corpus, opened memory-mapped.

A folder with the passages and the manifest (counts, settings) that ``storage.py`` describes, and ``bm25/`` with the
arrays of the ``bm25s`` library.
Term ids are held flat in memory while building, passage texts never.
"""

from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import bm25s  # type: ignore[import-untyped]
from rich.progress import Progress

from searchr1.errors import CorpusError
from searchr1.retrieval.index.corpus import read_corpus
from searchr1.retrieval.index.storage import PassageWriter, new_folder, progress_bar, read_manifest, write_manifest
from searchr1.retrieval.index.terms import Tokenizer, TokenizerSettings

FORMAT = 1
BM25 = "bm25"
_NUMBA_FROM = 100_000
"""Passages from which compiling the numba kernels (seconds) is repaid."""


@dataclass(frozen=True, slots=True)
class IndexInfo:
    """What an index holds. ``terms`` counts distinct search terms; ``k1`` and ``b`` are BM25's parameters."""

    passages: int
    terms: int
    tokens: int
    k1: float
    b: float
    tokenizer: TokenizerSettings


def build_index(
    corpus: Path,
    out: Path,
    *,
    progress: bool = True,
    overwrite: bool = False,
    tokenizer: TokenizerSettings | None = None,
    k1: float = 0.9,
    b: float = 0.4,
) -> IndexInfo:
    """Index the JSONL ``corpus`` into the folder ``out``, which appears complete or not at all.

    ``k1`` and ``b`` default to Pyserini's values, which upstream's BM25 server uses. The progress bar goes to stderr.
    Raises ``CorpusError`` for a malformed corpus (file and line named), for an ``out`` that exists (only an index is
    ever replaced, and only with ``overwrite``), and for a disk that refuses.
    """
    with new_folder(out, overwrite=overwrite) as work:
        return _build(corpus, work, tokenizer or TokenizerSettings(), k1, b, progress)


def _build(corpus: Path, work: Path, settings: TokenizerSettings, k1: float, b: float, progress: bool) -> IndexInfo:
    with progress_bar(progress) as bar:
        collected = _collect(corpus, work, Tokenizer(settings), bar)
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


def default_backend(passages: int) -> Literal["numpy", "numba"]:
    """Return the bm25s backend that suits a corpus of that many passages."""
    return "numba" if passages >= _NUMBA_FROM else "numpy"


@dataclass(frozen=True, slots=True)
class _Collected:
    vocabulary: dict[str, int]
    tokens: "array[int]"
    starts: "array[int]"


def _collect(corpus: Path, work: Path, tokenizer: Tokenizer, bar: Progress) -> _Collected:
    """Write the passages and their offsets; return the term ids of all passages, end to end."""
    vocabulary: dict[str, int] = {}
    id_of_word: dict[str, int] = {}
    tokens, starts = array("i"), array("q", [0])
    total = corpus.stat().st_size if corpus.is_file() else None
    task = bar.add_task("Reading passages", total=total)
    with PassageWriter(work) as passages:
        for record in read_corpus(corpus, lambda count: bar.advance(task, count)):
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
        raise CorpusError(f"the corpus {corpus} holds no searchable word")
    return _Collected(vocabulary, tokens, starts)


class _Rows:
    """The passages' term ids as the list of lists that ``bm25s`` iterates, without being one."""

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
    manifest = read_manifest(path, FORMAT)
    try:
        counts = {name: manifest[name] for name in ("passages", "terms", "tokens", "k1", "b")}
        return IndexInfo(**counts, tokenizer=TokenizerSettings(**manifest["tokenizer"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"the manifest of the index {path} is malformed: {error!r}") from error
