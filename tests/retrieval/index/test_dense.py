import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from searchr1.errors import ConfigurationError, CorpusError
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.index import dense
from searchr1.retrieval.index.batched import BatchedRetriever
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.retrieval.index.dense import DenseIndex, Precision, build_dense, load_dense_info
from searchr1.retrieval.index.encoder import EncoderInfo, EncoderSettings, HuggingFaceEncoder

DIMENSION = 8


class RandomEncoder:
    """Draws a vector for each text, always the same one."""

    info = EncoderInfo("random", DIMENSION, EncoderSettings())

    def encode_queries(self, texts: Sequence[str]) -> Any:
        return self.encode_passages(texts)

    def encode_passages(self, texts: Sequence[str]) -> Any:
        vectors = np.array([np.random.default_rng(list(text.encode())).normal(size=DIMENSION) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def dense_path(corpus_path: Path, tmp_path: Path, encoder: HuggingFaceEncoder) -> Path:
    path = tmp_path / "dense"
    build_dense(corpus_path, path, encoder, progress=False)
    return path


@pytest.fixture
def dense_index(dense_path: Path, encoder: HuggingFaceEncoder) -> DenseIndex:
    return DenseIndex.open(dense_path, encoder)


@pytest.fixture
async def retriever(dense_index: DenseIndex) -> AsyncIterator[BatchedRetriever]:
    async with contextlib.aclosing(dense_index.retriever()) as opened:
        yield opened


async def test_finds_the_nearest_passage_with_its_fields(retriever: BatchedRetriever) -> None:
    outcome = await retriever.search("Timbuktu, on the edge of the Sahara", 3, 30)
    assert isinstance(outcome, Found)
    assert outcome.provider == "dense"
    best = outcome.passages[0]
    assert (best.id, best.title) == ("timbuktu", '"Timbuktu"')
    assert best.text == "Timbuktu is a city in Mali, on the edge of the Sahara."
    scores = [passage.score or 0.0 for passage in outcome.passages]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[0] <= 1.001


@pytest.mark.parametrize(("query", "k"), [("", 3), ("  ", 3), ("Mali", 0), ("Mali", -1)])
async def test_nothing_asked_finds_nothing(
    dense_index: DenseIndex, retriever: BatchedRetriever, query: str, k: int
) -> None:
    assert await retriever.search(query, k, 30) == Found((), provider="dense")
    assert dense_index.search_batch([query], k) == [[]]


async def test_all_passages_are_neighbors_of_any_query(dense_index: DenseIndex, retriever: BatchedRetriever) -> None:
    outcome = await retriever.search("zzyzx \x00 \ud800", 50, 30)
    assert isinstance(outcome, Found)
    assert len(outcome.passages) == len(dense_index) == 5


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_passed_deadline_is_a_timeout(retriever: BatchedRetriever, deadline_s: float) -> None:
    outcome = await retriever.search("Mali", 3, deadline_s)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"


async def test_concurrent_searches_keep_their_own_answers(retriever: BatchedRetriever) -> None:
    names = ["landlocked country", "Timbuktu Sahara", "Córdoba Andalusia", "single line about rivers"] * 10
    words = ["landlocked", "Sahara", "Andalusia", "rivers"] * 10
    outcomes = await asyncio.gather(*(retriever.search(name, 1 + i % 2, 30) for i, name in enumerate(names)))
    for i, (outcome, word) in enumerate(zip(outcomes, words, strict=True)):
        assert isinstance(outcome, Found)
        assert len(outcome.passages) == 1 + i % 2
        assert word in outcome.passages[0].contents


async def test_cancellation_gets_through(retriever: BatchedRetriever) -> None:
    search = asyncio.create_task(retriever.search("Mali", 3, 30))
    await asyncio.sleep(0)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert isinstance(await retriever.search("Mali", 3, 30), Found)


async def test_encoding_runs_off_the_event_loop(dense_path: Path, encoder: HuggingFaceEncoder) -> None:
    threads: list[int] = []

    class Watched:
        info = encoder.info

        def encode_queries(self, texts: Sequence[str]) -> Any:
            threads.append(threading.get_ident())
            return encoder.encode_queries(texts)

        def encode_passages(self, texts: Sequence[str]) -> Any:
            raise AssertionError("nothing is built here")

    async with contextlib.aclosing(DenseIndex.open(dense_path, Watched()).retriever()) as opened:
        await opened.search("Mali", 1, 30)
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


async def test_an_encoder_that_fails_is_a_typed_failure(dense_path: Path, encoder: HuggingFaceEncoder) -> None:
    class Broken:
        info = encoder.info

        def encode_queries(self, texts: Sequence[str]) -> Any:
            raise RuntimeError("out of memory")

        def encode_passages(self, texts: Sequence[str]) -> Any:
            raise AssertionError("nothing is built here")

    async with contextlib.aclosing(DenseIndex.open(dense_path, Broken()).retriever()) as opened:
        outcome = await opened.search("Mali", 1, 30)
        assert isinstance(outcome, SearchFailed)
        assert outcome.kind == "unavailable"
    closed = await opened.search("Mali", 1, 30)
    assert isinstance(closed, SearchFailed)
    assert closed.kind == "unavailable"


def write_numbers(path: Path, count: int) -> None:
    lines = (json.dumps({"id": f"p{i}", "contents": f"T\nnumber {i // 2}"}) for i in range(count))
    path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("precision", ["float16", "float32"])
@pytest.mark.parametrize("block_rows", [1, 7, 1000])
def test_blocks_find_what_one_sort_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision, block_rows: int
) -> None:
    monkeypatch.setattr(dense, "_BLOCK_BYTES", block_rows * 4 * DIMENSION)
    monkeypatch.setattr(dense, "_CHUNK", 33)
    write_numbers(tmp_path / "corpus.jsonl", 100)
    encoder = RandomEncoder()
    info = build_dense(tmp_path / "corpus.jsonl", tmp_path / "out", encoder, progress=False, precision=precision)
    assert info == load_dense_info(tmp_path / "out")
    assert (info.passages, info.precision) == (100, precision)
    index = DenseIndex.open(tmp_path / "out", encoder)
    vectors = encoder.encode_passages([f"T\nnumber {i // 2}" for i in range(100)])
    queries = ["a", "b", "", "c"]
    for k in (1, 5, 99, 100, 1000):
        for query, found in zip(queries, index.search_batch(queries, k), strict=True):
            scores = vectors @ encoder.encode_queries([query])[0] if query else np.empty(0)
            rows = np.argsort(-scores, kind="stable")[:k]
            assert [passage.id for passage in found] == [f"p{row}" for row in rows]
            np.testing.assert_allclose([p.score or 0.0 for p in found], scores[rows], atol=1e-3)


def test_another_encoder_is_refused(dense_path: Path, encoder_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another encoder"):
        DenseIndex.open(dense_path, HuggingFaceEncoder(encoder_path))
    with pytest.raises(ConfigurationError, match="another encoder"):
        DenseIndex.open(dense_path, RandomEncoder())


def test_an_index_of_another_kind_is_refused(index_path: Path, dense_path: Path) -> None:
    with pytest.raises(CorpusError, match="format 2, expected 'dense-1'"):
        DenseIndex.open(index_path, RandomEncoder())
    with pytest.raises(CorpusError, match="format 'dense-1'"):
        LocalIndex.open(dense_path)


@pytest.mark.parametrize("name", ["manifest.json", "passages.bin", "offsets.npy", "vectors.bin"])
@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_damaged_index_is_refused(dense_path: Path, encoder: HuggingFaceEncoder, name: str, damage: str) -> None:
    file = dense_path / name
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes()[:-1][:-1])
    with pytest.raises(CorpusError, match="dense"):
        DenseIndex.open(dense_path, encoder)


@pytest.mark.parametrize(
    "change",
    [{"precision": "int8"}, {"passages": "many"}, {"encoder": None}, {"encoder": {"model": "x"}}, {"files": 5}],
)
def test_a_malformed_manifest_is_refused(dense_path: Path, encoder: HuggingFaceEncoder, change: dict[str, Any]) -> None:
    manifest = dense_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(CorpusError, match="malformed"):
        DenseIndex.open(dense_path, encoder)


def test_a_folder_is_replaced_only_if_asked_for(tmp_path: Path, dense_path: Path) -> None:
    write_numbers(tmp_path / "corpus.jsonl", 3)
    with pytest.raises(CorpusError, match="is an index already"):
        build_dense(tmp_path / "corpus.jsonl", dense_path, RandomEncoder(), progress=False)
    info = build_dense(tmp_path / "corpus.jsonl", dense_path, RandomEncoder(), progress=False, overwrite=True)
    assert load_dense_info(dense_path) == info
    (tmp_path / "mine").mkdir()
    with pytest.raises(CorpusError, match="not an index"):
        build_dense(tmp_path / "corpus.jsonl", tmp_path / "mine", RandomEncoder(), progress=False, overwrite=True)


@pytest.mark.parametrize("text", ["", '{"id": "a", "contents": "x"}\n{"id": "b"}'])
def test_a_corpus_that_cannot_be_read_leaves_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "corpus.jsonl").write_text(text)
    with pytest.raises(CorpusError, match=r"corpus\.jsonl"):
        build_dense(tmp_path / "corpus.jsonl", tmp_path / "out", RandomEncoder(), progress=False)
    with pytest.raises(CorpusError, match="cannot be read"):
        build_dense(tmp_path / "none.jsonl", tmp_path / "out", RandomEncoder(), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_progress_goes_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_numbers(tmp_path / "corpus.jsonl", 3)
    build_dense(tmp_path / "corpus.jsonl", tmp_path / "out", RandomEncoder(), progress=True)
    shown = capsys.readouterr()
    assert "Encoding passages" in shown.err
    assert shown.out == ""
