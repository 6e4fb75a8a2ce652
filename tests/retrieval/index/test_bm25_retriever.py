"""Ranking against ``bm25s`` used directly, and the retriever's threads and batches."""

import asyncio
import json
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import bm25s  # type: ignore[import-untyped]
import pytest
import Stemmer  # type: ignore[import-not-found]

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.index.bm25 import Backend, LocalIndex, build_index


@pytest.fixture(scope="module")
def texts() -> list[str]:
    draw = random.Random(7)
    words = [
        f"{stem}{ending}" for stem in ("river", "city", "walk", "moun", "lake") for ending in ("", "s", "ing", "tain")
    ]
    words += [f"name{i}" for i in range(200)] + ["the", "of"] * 10
    return [" ".join(draw.choices(words, k=draw.randint(3, 40))) for _ in range(600)]


@pytest.fixture(scope="module")
def path(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranked")
    records = (json.dumps({"id": str(i), "contents": text}) for i, text in enumerate(texts))
    (folder / "c.jsonl").write_text("\n".join(records))
    build_index(folder / "c.jsonl", folder / "index", progress=False)
    return folder / "index"


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.slow)])
def test_scores_equal_the_librarys(texts: list[str], path: Path, backend: Backend) -> None:
    direct = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    stemmer = Stemmer.Stemmer("english")
    direct.index(bm25s.tokenize(texts, stemmer=stemmer, show_progress=False), show_progress=False)
    queries = ["the rivers of name7", "walking to lakes name12 name12", "mountain", "unknown city"]
    tokens = bm25s.tokenize(queries, stemmer=stemmer, return_ids=False, show_progress=False)
    found = LocalIndex.open(path, backend=backend).search_batch(queries, 10)
    for query_tokens, passages in zip(tokens, found, strict=True):
        known = [token for token in query_tokens if token in direct.vocab_dict]
        every = direct.get_scores(known)
        assert len(passages) == 10
        assert [p.score for p in passages] == pytest.approx(sorted(every.tolist(), reverse=True)[:10], rel=1e-5)
        assert [p.score for p in passages] == pytest.approx([every[int(p.id)] for p in passages], rel=1e-5)
        assert [p.title for p in passages] == [texts[int(p.id)] for p in passages]


def test_equal_scores_stay_in_corpus_order(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(
        "".join(json.dumps({"id": i, "contents": "same words"}) + "\n" for i in range(50))
    )
    build_index(tmp_path / "c.jsonl", tmp_path / "index", progress=False)
    index = LocalIndex.open(tmp_path / "index")
    assert [p.id for p in index.search_batch(["words"], 5)[0]] == ["0", "1", "2", "3", "4"]


def test_a_batch_answers_each_query_in_its_place(index: LocalIndex) -> None:
    found = index.search_batch(["", "Timbuktu", "zzyzx", "cordoba"], 1)
    assert [[p.id for p in passages] for passages in found] == [[], ["timbuktu"], [], ["cordoba"]]
    assert index.search_batch([], 3) == []
    assert index.search_batch(["Mali"], 0) == [[]]


def test_a_huge_query_is_answered(index: LocalIndex) -> None:
    assert index.search_batch(["mali " * 100_000], 1)[0][0].id == "mali"


class GatedIndex(LocalIndex):
    """Holds every pass until ``gate`` opens, and records the passes."""

    gate: threading.Event
    entered: threading.Event
    passes: list[tuple[list[str], int]]

    def search_batch(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.passes.append((list(queries), k))
        self.entered.set()
        assert self.gate.wait(30)
        if "broken" in queries:
            raise RuntimeError("a bad disk")
        return super().search_batch(queries, k)


@pytest.fixture
def gated(index_path: Path) -> GatedIndex:
    index = GatedIndex.open(index_path)
    assert isinstance(index, GatedIndex)
    index.gate, index.entered, index.passes = threading.Event(), threading.Event(), []
    return index


async def test_waiting_searches_run_as_one_batch_per_k(gated: GatedIndex) -> None:
    retriever = gated.retriever(max_workers=1, max_batch=3)
    asked = [("first", 1), ("a", 1), ("b", 2), ("c", 1), ("d", 1), ("Mali", 1)]
    searches = [asyncio.create_task(retriever.search(query, k, 30)) for query, k in asked[:1]]
    assert await asyncio.to_thread(gated.entered.wait, 30)
    searches += [asyncio.create_task(retriever.search(query, k, 30)) for query, k in asked[1:]]
    await asyncio.sleep(0)
    gated.gate.set()
    outcomes = await asyncio.gather(*searches)
    await retriever.aclose()
    assert gated.passes == [(["first"], 1), (["a", "c", "d"], 1), (["b"], 2), (["Mali"], 1)]
    assert isinstance(outcomes[-1], Found)
    assert outcomes[-1].passages[0].id == "mali"


async def test_a_search_past_its_deadline_is_dropped(gated: GatedIndex) -> None:
    retriever = gated.retriever(max_workers=1)
    running, waiting = await asyncio.gather(retriever.search("Mali", 1, 0.02), retriever.search("late", 2, 0.02))
    assert isinstance(running, SearchFailed)
    assert isinstance(waiting, SearchFailed)
    assert (running.kind, waiting.kind) == ("timeout", "timeout")
    gated.gate.set()
    await retriever.aclose()
    assert gated.passes == [(["Mali"], 1)]


async def test_a_failure_in_the_thread_reaches_the_search(gated: GatedIndex, caplog: pytest.LogCaptureFixture) -> None:
    gated.gate.set()
    retriever = gated.retriever()
    outcome = await retriever.search("broken", 1, 30)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"
    assert outcome.message == "index failed: RuntimeError", "its words may quote a query"
    assert "a bad disk" in caplog.text
    assert isinstance(await retriever.search("Mali", 1, 30), Found)
    await retriever.aclose()


async def test_a_closed_retriever_says_so(index: LocalIndex) -> None:
    retriever = index.retriever()
    await retriever.aclose()
    assert await retriever.search("Mali", 1, 30) == SearchFailed("unavailable", "index was closed", provider="index")
