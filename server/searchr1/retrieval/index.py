"""The BM25 index on disk: built once from a corpus, opened memory-mapped.

A folder with ``manifest.json`` (format, counts, settings), ``bm25/`` (the arrays of the ``bm25s`` library),
``passages.bin`` (id and contents of every passage, UTF-8, end to end) and ``offsets.npy`` (where each of them starts).
Term ids are held flat in memory while building, passage texts never.
"""

import contextlib
import json
import shutil
import uuid
from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import bm25s  # type: ignore[import-untyped]
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from searchr1.errors import CorpusError
from searchr1.retrieval.corpus import read_corpus
from searchr1.retrieval.tokenizer import Tokenizer, TokenizerSettings

FORMAT = 1
MANIFEST, PASSAGES, OFFSETS, BM25 = "manifest.json", "passages.bin", "offsets.npy", "bm25"
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
    _check_target(out, overwrite)
    work = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.building")
    try:
        work.mkdir(parents=True)
        info = _build(corpus, work, tokenizer or TokenizerSettings(), k1, b, progress)
        _move_into_place(work, out)
    except OSError as error:
        raise CorpusError(f"the index {out} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return info


def _check_target(out: Path, overwrite: bool) -> None:
    if not (out.exists() or out.is_symlink()):
        return
    if not (out / MANIFEST).is_file():
        raise CorpusError(f"{out} exists and is not an index; choose another path")
    if not overwrite:
        raise CorpusError(f"{out} is an index already; ask for it to be overwritten, or choose another path")


def _move_into_place(work: Path, out: Path) -> None:
    if not out.exists():
        work.rename(out)
        return
    aside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.old")
    out.rename(aside)
    work.rename(out)
    shutil.rmtree(aside)


def _build(corpus: Path, work: Path, settings: TokenizerSettings, k1: float, b: float, progress: bool) -> IndexInfo:
    with _progress_bar(progress) as bar:
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
    sizes = {path.relative_to(work).as_posix(): path.stat().st_size for path in work.rglob("*") if path.is_file()}
    manifest = {"format": FORMAT, "bm25s": bm25s.__version__, **asdict(info), "files": sizes}
    (work / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
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
    tokens, starts, offsets = array("i"), array("q", [0]), array("q", [0])
    total = corpus.stat().st_size if corpus.is_file() else None
    task = bar.add_task("Reading passages", total=total)
    with (work / PASSAGES).open("wb") as passages:
        for record in read_corpus(corpus, lambda count: bar.advance(task, count)):
            for part in (record.id, record.contents):
                offsets.append(offsets[-1] + passages.write(part.encode("utf-8")))
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
    np.save(work / OFFSETS, np.frombuffer(offsets, dtype=np.int64))
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


@contextlib.contextmanager
def _progress_bar(enabled: bool) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=not enabled) as bar:
        yield bar


def load_manifest(path: Path) -> IndexInfo:
    """Read and check the manifest of the index folder ``path``, sizes of its files included; raise ``CorpusError``."""
    if not path.is_dir():
        raise CorpusError(f"the index {path} does not exist or is not a folder")
    try:
        manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise CorpusError(
                f"the index {path} has format {manifest['format']!r}, this version reads {FORMAT}; build it again"
            )
        counts = {name: manifest[name] for name in ("passages", "terms", "tokens", "k1", "b")}
        info = IndexInfo(**counts, tokenizer=TokenizerSettings(**manifest["tokenizer"]))
        files: dict[str, int] = manifest["files"]
        for name, size in files.items():
            if (found := (path / name).stat().st_size) != size:
                raise CorpusError(f"the index {path} is damaged: {name} has {found} bytes, expected {size}")
    except OSError as error:
        raise CorpusError(f"{path} is not a complete index: {error.strerror} ({error.filename})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(f"the manifest of the index {path} is malformed: {error!r}") from error
    return info
