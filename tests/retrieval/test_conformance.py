"""The conformance suite of retrievers. A new kind of index joins by adding an opener to ``OPENERS``, under its name.

One that asks a server joins ``providers/cases.py`` instead, with what its answers look like on the wire.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest
from fastapi import FastAPI

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, Retriever, SearchFailed
from searchr1.retrieval.fake import FakeRetriever
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.retrieval.providers.retrieve import RetrieveClient
from searchr1.retrieval.registry import providers
from searchr1.retrieval.server import create_retrieve_app


@dataclass(frozen=True)
class World:
    """The parts that an opener may build on. Every retriever must hold the index's passages."""

    index: LocalIndex
    serve_app: Callable[[FastAPI], AbstractAsyncContextManager[str]]


@contextlib.asynccontextmanager
async def _fake(world: World) -> AsyncIterator[Retriever]:
    yield FakeRetriever(lambda query, k: world.index.search_batch([query], k)[0])


@contextlib.asynccontextmanager
async def _local(world: World) -> AsyncIterator[Retriever]:
    async with contextlib.aclosing(world.index.retriever()) as retriever:
        yield retriever


@contextlib.asynccontextmanager
async def _http(world: World) -> AsyncIterator[Retriever]:
    async with (
        _local(world) as local,
        world.serve_app(create_retrieve_app(local)) as url,
        contextlib.aclosing(RetrieveClient(url)) as client,
    ):
        yield client


OPENERS: dict[str, Callable[[World], AbstractAsyncContextManager[Retriever]]] = {
    "fake": _fake,
    "index": _local,
    "http": _http,
}


def test_every_kind_of_index_has_an_opener() -> None:
    """Vectors rank all passages for any query, so ``dense`` has rules of its own: ``index/test_dense.py``."""
    assert {one.name for one in providers().values() if one.is_local} <= {*OPENERS, "dense"}


@pytest.fixture(params=OPENERS)
async def retriever(
    request: pytest.FixtureRequest,
    index: LocalIndex,
    serve_app: Callable[[FastAPI], AbstractAsyncContextManager[str]],
) -> AsyncIterator[Retriever]:
    async with OPENERS[request.param](World(index, serve_app)) as opened:
        yield opened


async def found(retriever: Retriever, query: str, k: int) -> tuple[Passage, ...]:
    outcome = await retriever.search(query, k, 30)
    assert isinstance(outcome, Found), outcome
    return outcome.passages


async def test_finds_the_best_passage_with_its_fields(retriever: Retriever) -> None:
    (passage,) = await found(retriever, "Timbuktu", 1)
    assert (passage.id, passage.title) == ("timbuktu", '"Timbuktu"')
    assert passage.text == "Timbuktu is a city in Mali, on the edge of the Sahara."
    assert passage.score is not None
    assert passage.score > 0


async def test_orders_by_score(retriever: Retriever) -> None:
    scores = [passage.score or 0.0 for passage in await found(retriever, "capital city of Mali", 4)]
    assert len(scores) == 4
    assert scores == sorted(scores, reverse=True)


async def test_never_returns_more_than_k(retriever: Retriever) -> None:
    assert [len(await found(retriever, "Mali", k)) for k in (1, 2, 3)] == [1, 2, 3]


async def test_may_return_fewer_than_k(retriever: Retriever) -> None:
    assert len(await found(retriever, "Mali", 50)) == 3


@pytest.mark.parametrize("query", ["", "   ", "zzyzx", "!?", "\x00", "\ud800"])
async def test_a_query_without_matches_finds_nothing(retriever: Retriever, query: str) -> None:
    assert await found(retriever, query, 3) == ()


@pytest.mark.parametrize("k", [0, -1])
async def test_no_passages_wanted_finds_nothing(retriever: Retriever, k: int) -> None:
    assert await found(retriever, "Mali", k) == ()


@pytest.mark.parametrize("deadline_s", [0.0, -1.0])
async def test_a_passed_deadline_is_a_timeout(retriever: Retriever, deadline_s: float) -> None:
    outcome = await retriever.search("Mali", 3, deadline_s)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"
    assert await found(retriever, "Mali", 1)


async def test_concurrent_searches_keep_their_own_answers(retriever: Retriever) -> None:
    names = ["Mali", "Timbuktu", "Córdoba", "rivers"] * 10
    answers = await asyncio.gather(*(found(retriever, name, 1 + i % 2) for i, name in enumerate(names)))
    assert all(name in answer[0].contents for name, answer in zip(names, answers, strict=True))


async def test_the_same_search_finds_the_same(retriever: Retriever) -> None:
    assert await found(retriever, "capital of Mali", 3) == await found(retriever, "capital of Mali", 3)


async def test_cancellation_gets_through(retriever: Retriever) -> None:
    search = asyncio.create_task(found(retriever, "Mali", 3))
    await asyncio.sleep(0)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    assert await found(retriever, "Mali", 1)
