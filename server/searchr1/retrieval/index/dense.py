"""Exact nearest neighbors over an index on this machine: one vector per passage, compared with every query.

A folder with ``vectors.bin`` (the passages' unit vectors, row by row, memory-mapped) beside the passages. Each pass
reads all vectors once for all its queries, so its cost grows with the corpus: meant for up to a few million passages.
"""

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from searchr1.errors import ConfigurationError, CorpusError
from searchr1.loop.types import Passage
from searchr1.retrieval.index.batched import BatchedRetriever
from searchr1.retrieval.index.corpus import Corpus, CorpusRecord
from searchr1.retrieval.index.encoder import Encoder, EncoderInfo, settings_from
from searchr1.retrieval.index.ranking import top_rows
from searchr1.retrieval.index.storage import (
    PassageStore,
    PassageWriter,
    new_folder,
    progress_bar,
    read_manifest,
    write_manifest,
)

FORMAT = "dense-1"
VECTORS = "vectors.bin"
Precision = Literal["float16", "float32"]
_CHUNK = 512
"""Passages that are encoded together while building."""
_BLOCK_BYTES = 32 * 1024 * 1024
"""Bytes of float32 vectors that are compared at once; bounds a search's memory."""

Scores = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DenseInfo:
    """Counts and settings of a dense index."""

    passages: int
    precision: Precision
    encoder: EncoderInfo


def build_dense(
    corpus: Path,
    out: Path,
    encoder: Encoder,
    *,
    progress: bool = True,
    overwrite: bool = False,
    precision: Precision = "float32",
    on_ignored: Callable[[Collection[str]], None] = lambda _: None,
) -> DenseInfo:
    """Encode the ``corpus`` into the folder ``out``, which appears complete or not at all.

    ``precision`` is that of the stored vectors: half of it halves their size, moves scores by less than 0.001, and
    makes a single search ten times as long, since every vector is widened again. The progress bar goes to stderr.
    ``on_ignored`` hears the names of the corpus's fields that the index does not keep.

    Raises ``CorpusError`` for a malformed corpus (file and line named), for an ``out`` that exists (only an index is
    ever replaced, and only with ``overwrite``), and for a disk that refuses.
    """
    with new_folder(out, overwrite=overwrite) as work, progress_bar(progress) as bar:
        records = Corpus(corpus)
        task = bar.add_task("Encoding passages", total=records.num_bytes)
        records.on_bytes = lambda count: bar.advance(task, count)
        with PassageWriter(work) as passages, (work / VECTORS).open("wb") as vectors:
            for chunk in _chunks(iter(records)):
                for record in chunk:
                    passages.add(record)
                encoded = encoder.encode_passages([record.contents for record in chunk])
                vectors.write(np.ascontiguousarray(encoded, dtype=precision).tobytes())
        info = DenseInfo(len(passages), precision, encoder.info)
        write_manifest(work, FORMAT, asdict(info))
    on_ignored(sorted(records.ignored))
    return info


def _chunks(records: Iterator[CorpusRecord]) -> Iterator[list[CorpusRecord]]:
    while chunk := list(itertools.islice(records, _CHUNK)):
        yield chunk


class DenseIndex:
    """An open dense index, memory-mapped, for reading from any number of threads."""

    def __init__(self, info: DenseInfo, encoder: Encoder, vectors: npt.NDArray[Any], passages: PassageStore) -> None:
        self.info = info
        self._encoder, self._vectors, self._passages = encoder, vectors, passages
        self._block_rows = max(1, _BLOCK_BYTES // (4 * info.encoder.dimension))

    @classmethod
    def open(cls, path: Path, encoder: Encoder) -> "DenseIndex":
        """Open the index folder ``path``, whose passages ``encoder`` encoded.

        Raises ``CorpusError`` if it is missing, damaged or of another format, and ``ConfigurationError`` if another
        encoder made it, or the same with other settings: its vectors would mean something else.
        """
        info = load_dense_info(path)
        if info.encoder != encoder.info:
            raise ConfigurationError(
                f"the index {path} was built by another encoder, or by one with other settings ({info.encoder}); "
                f"this one is {encoder.info}"
            )
        try:
            shape = (info.passages, info.encoder.dimension)
            vectors = np.memmap(path / VECTORS, dtype=info.precision, mode="r", shape=shape)
            passages = PassageStore(path)
        except (OSError, ValueError) as error:
            raise CorpusError(f"the index {path} cannot be opened: {error}") from error
        return cls(info, encoder, vectors, passages)

    def __len__(self) -> int:
        return self.info.passages

    def search_batch(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """Return the ``k`` nearest passages for each query, nearest first, scored by the cosine of their vectors.

        Equal scores stay in corpus order. An empty query has no neighbors.
        """
        k = min(k, self.info.passages)
        asked = [query for query in queries if query.strip()] if k > 0 else []
        nearest = iter(self._nearest(self._encoder.encode_queries(asked), k)) if asked else iter(())
        return [self._passages_of(*next(nearest)) if asked and query.strip() else [] for query in queries]

    def retriever(self, *, max_workers: int = 2, max_batch: int = 64) -> BatchedRetriever:
        """Return a ``Retriever`` over this index, for one event loop; close it with ``aclose``.

        ``max_workers`` bounds the threads, ``max_batch`` the searches of one pass.
        """
        return BatchedRetriever(self.search_batch, name="dense", max_batch=max_batch, max_concurrent=max_workers)

    def _nearest(self, queries: Scores, k: int) -> list[tuple[Rows, Scores]]:
        best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
        for start in range(0, self.info.passages, self._block_rows):
            block = np.asarray(self._vectors[start : start + self._block_rows], dtype=np.float32)
            for i, scores in enumerate(queries @ block.T):
                rows = top_rows(scores, k)
                best[i] = _merge(best[i], (rows, scores[rows]), start, k)
        return best

    def _passages_of(self, rows: Rows, scores: Scores) -> list[Passage]:
        return [self._passages.passage(row, score) for row, score in zip(rows.tolist(), scores.tolist(), strict=True)]


def _merge(best: tuple[Rows, Scores], found: tuple[Rows, Scores], start: int, k: int) -> tuple[Rows, Scores]:
    rows, scores = np.concatenate((best[0], found[0] + start)), np.concatenate((best[1], found[1]))
    order = np.argsort(-scores, kind="stable")[:k]
    return rows[order], scores[order]


def load_dense_info(path: Path) -> DenseInfo:
    """Read and check the manifest of the index folder ``path``, sizes of its files included; raise ``CorpusError``."""
    manifest = read_manifest(path, FORMAT)
    try:
        encoder = manifest["encoder"]
        described = EncoderInfo(encoder["model"], int(encoder["dimension"]), settings_from(encoder["settings"]))
        info = DenseInfo(int(manifest["passages"]), manifest["precision"], described)
        if info.precision not in ("float16", "float32"):
            raise ValueError(f"unknown precision {info.precision!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"the manifest of the index {path} is malformed: {error!r}") from error
    return info
