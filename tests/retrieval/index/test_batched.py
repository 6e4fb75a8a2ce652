import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.index.batched import BatchedRetriever


class Index:
    """Answers every query with itself, ``k`` times; its calls wait while ``gate`` is shut."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self._called, self._loop = asyncio.Event(), asyncio.get_running_loop()
        self.batches: list[tuple[list[str], int]] = []
        self.threads: set[str] = set()
        self.running = self.most_running = 0
        self._counting = threading.Lock()

    def search_many(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        # Counted before it is announced: a test that has seen the call may open the gate at once.
        with self._counting:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
            self.batches.append((list(queries), k))
        self.threads.add(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self._called.set)
        self.gate.wait(20)
        with self._counting:
            self.running -= 1
        if "broken" in queries:
            raise RuntimeError("the index is broken")
        if "short" in queries:
            return []
        return [[passage(query)] * k for query in queries]

    async def until_called(self, times: int) -> None:
        async with asyncio.timeout(20):
            while len(self.batches) < times:
                self._called.clear()
                await self._called.wait()


def passage(query: str) -> Passage:
    return Passage.from_contents(f"{query}\ntext")


@pytest.fixture
async def index() -> Index:
    return Index()


@pytest.fixture
async def retriever(index: Index) -> AsyncIterator[BatchedRetriever]:
    retriever = BatchedRetriever(index.search_many, name="index", max_batch=4, max_concurrent=1)
    yield retriever
    index.gate.set()
    await retriever.aclose()


async def start(retriever: BatchedRetriever, *queries: str, k: int = 1) -> list["asyncio.Task[object]"]:
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(retriever.search(query, k, 30)) for query in queries]
    await asyncio.sleep(0)
    return tasks


async def test_every_search_gets_its_own_passages(index: Index, retriever: BatchedRetriever) -> None:
    queries = [f"q{number}" for number in range(30)]
    outcomes = await asyncio.gather(*(retriever.search(query, 2, 30) for query in queries))
    assert outcomes == [Found((passage(query),) * 2, provider="index") for query in queries]
    assert max(len(batch) for batch, _ in index.batches) == 4
    assert all(name.startswith("index") for name in index.threads)


async def test_searches_that_wait_are_one_call_per_k(index: Index, retriever: BatchedRetriever) -> None:
    index.gate.clear()
    tasks = await start(retriever, "first")
    await index.until_called(1)
    tasks += await start(retriever, "a", "b") + await start(retriever, "c", k=2) + await start(retriever, "d")
    index.gate.set()
    await asyncio.gather(*tasks)
    assert index.batches == [(["first"], 1), (["a", "b", "d"], 1), (["c"], 2)]


async def test_a_cancelled_search_drops_out(index: Index, retriever: BatchedRetriever) -> None:
    index.gate.clear()
    first, *rest = await start(retriever, "first")
    await index.until_called(1)
    gone, stays = await start(retriever, "gone", "stays")
    gone.cancel()
    assert isinstance(await retriever.search("late", 1, 0.001), SearchFailed)
    index.gate.set()
    await asyncio.gather(first, stays, *rest)
    assert index.batches == [(["first"], 1), (["stays"], 1)]


async def test_calls_at_once_are_bounded(index: Index) -> None:
    retriever = BatchedRetriever(index.search_many, name="index", max_batch=1, max_concurrent=2, wait_s=0.0)
    index.gate.clear()
    tasks = await start(retriever, *(f"q{number}" for number in range(8)))
    await index.until_called(2)
    index.gate.set()
    await asyncio.gather(*tasks)
    await retriever.aclose()
    assert (index.most_running, len(index.batches)) == (2, 8)


async def test_a_second_call_waits_for_others_to_join(index: Index) -> None:
    retriever = BatchedRetriever(index.search_many, name="index", max_concurrent=2, wait_s=0.05)
    index.gate.clear()
    tasks = await start(retriever, "first")
    await index.until_called(1)
    tasks += await start(retriever, "a") + await start(retriever, "b")
    await index.until_called(2)
    index.gate.set()
    await asyncio.gather(*tasks)
    await retriever.aclose()
    assert index.batches == [(["first"], 1), (["a", "b"], 1)]


async def test_a_search_right_after_the_last_one_is_not_forgotten(retriever: BatchedRetriever) -> None:
    for number in range(200):
        outcome = await retriever.search(f"q{number}", 1, 30)
        assert isinstance(outcome, Found)


async def test_an_index_that_breaks_fails_its_searches_only(index: Index, retriever: BatchedRetriever) -> None:
    for query, kind in (("broken", "unavailable"), ("short", "bad_response")):
        outcome = await retriever.search(query, 1, 30)
        assert isinstance(outcome, SearchFailed)
        assert (outcome.kind, outcome.provider) == (kind, "index")
    assert isinstance(await retriever.search("fine", 1, 30), Found)


async def test_a_deadline_that_passes_is_a_timeout(index: Index, retriever: BatchedRetriever) -> None:
    index.gate.clear()
    outcome = await retriever.search("q", 1, 0.01)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"


async def test_nothing_to_search_finds_nothing(index: Index, retriever: BatchedRetriever) -> None:
    for query, k in (("", 3), (" ", 3), ("q", 0)):
        assert await retriever.search(query, k, 30) == Found((), provider="index")
    assert index.batches == []


async def test_closing_finishes_what_runs_and_refuses_the_rest(index: Index) -> None:
    retriever = BatchedRetriever(index.search_many, name="index")
    [running] = await start(retriever, "q")
    await retriever.aclose()
    assert isinstance(await running, Found)
    outcome = await retriever.search("q", 1, 30)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "unavailable"
