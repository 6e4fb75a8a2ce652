"""The whole layer as the operator's configuration sets it up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from searchr1.errors import ConfigurationError
from searchr1.identity import Caller
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.config import BudgetConfig, CacheConfig, ResilienceConfig, SearchConfig
from searchr1.retrieval.factory import open_search

ONCE = ResilienceConfig(attempts=1)
ACME, BETA = Caller("acme", "k1"), Caller("beta", "k2")


@asynccontextmanager
async def upstream(calls: list[str], *, status: int = 200) -> AsyncIterator[str]:
    """A ``/retrieve`` server that notes what it is asked."""

    async def retrieve(request: web.Request) -> web.Response:
        [query] = (await request.json())["queries"]
        calls.append(query)
        return web.json_response({"result": [[f"T\n{query}"]]}, status=status)

    app = web.Application()
    app.router.add_post("/retrieve", retrieve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/retrieve"
    finally:
        await runner.cleanup()


async def test_a_repeated_query_is_a_hit_within_its_tenant_alone() -> None:
    calls: list[str] = []
    async with upstream(calls) as url, open_search(SearchConfig(url, resilience=ONCE)) as layer:
        states = []
        for caller, query in ((ACME, "Mali"), (ACME, " MALI "), (BETA, "Mali"), (BETA, "mali")):
            outcome = await layer.view(caller).search(query, 3, 20)
            assert isinstance(outcome, Found)
            states.append((outcome.cache, outcome.provider))
    assert states == [("miss", "retrieve"), ("hit", "retrieve")] * 2
    assert calls == ["Mali", "Mali"]


@pytest.mark.parametrize("share_cache", [False, True])
async def test_keys_of_no_tenant_share_a_search_only_where_a_setting_says_so(share_cache: bool) -> None:
    calls: list[str] = []
    config = SearchConfig("", resilience=ONCE, share_cache=share_cache)
    alpha, beta, tenant = Caller("", "k1"), Caller("", "k2"), Caller("k1", "k3")
    async with upstream(calls) as url, open_search(replace(config, retriever=url)) as layer:
        for caller in (alpha, alpha, beta, tenant):
            await layer.view(caller).search("Mali", 3, 20)
        peeked = await layer.view(Caller("", "k4"), cache_only=True).search("Mali", 3, 20)
    assert len(calls) == (2 if share_cache else 3)
    assert isinstance(peeked, Found if share_cache else SearchFailed)


async def test_long_passages_are_cut_before_they_are_kept() -> None:
    queries: list[str] = []
    long = "word " * 20_000
    async with upstream(queries) as url:
        config = SearchConfig(url, resilience=ONCE, passage_chars=500)
        async with open_search(config) as layer:
            assert isinstance(layer.cache, CachedRetriever)
            for expected in ("miss", "hit"):
                outcome = await layer.view(ACME).search(long, 3, 20)
                assert isinstance(outcome, Found)
                assert outcome.cache == expected
                [passage] = outcome.passages
                assert 400 < len(passage.text) <= 500
                assert passage.title == "T"


async def test_cache_only_answers_what_was_searched_before() -> None:
    calls: list[str] = []
    async with upstream(calls) as url, open_search(SearchConfig(url, resilience=ONCE)) as layer:
        alone = layer.view(ACME, cache_only=True)
        before = await alone.search("Mali", 3, 20)
        await layer.view(ACME).search("Mali", 3, 20)
        after = await alone.search("Mali", 3, 20)
    assert isinstance(before, SearchFailed)
    assert before.kind == "not_cached"
    assert isinstance(after, Found)
    assert after.cache == "hit"
    assert calls == ["Mali"]


async def test_a_spent_budget_leaves_the_cache() -> None:
    calls: list[str] = []
    budget = BudgetConfig(per_key=1, costs_usd={"retrieve": 0.01})
    async with upstream(calls) as url, open_search(SearchConfig(url, resilience=ONCE, budget=budget)) as layer:
        view = layer.view(ACME)
        first, again, other = [await view.search(query, 3, 20) for query in ("Mali", "Mali", "Niger")]
    assert isinstance(first, Found)
    assert isinstance(again, Found)
    assert again.cache == "hit"
    assert isinstance(other, SearchFailed)
    assert other.kind == "budget"
    assert calls == ["Mali"]


async def test_a_provider_that_refuses_the_key_is_not_called_again() -> None:
    calls: list[str] = []
    async with upstream(calls, status=401) as url, open_search(SearchConfig(url)) as layer:
        first, second = [await layer.view().search(query, 3, 20) for query in ("Mali", "Niger")]
    assert isinstance(first, SearchFailed)
    assert isinstance(second, SearchFailed)
    assert (first.kind, first.status, second.kind) == ("rejected", 401, "unavailable")
    assert calls == ["Mali"]


async def test_without_a_cache_every_search_is_sent() -> None:
    calls: list[str] = []
    async with upstream(calls) as url:
        config = SearchConfig(url, resilience=ONCE, cache=CacheConfig(enabled=False))
        async with open_search(config) as layer:
            for _ in range(2):
                await layer.view().search("Mali", 3, 20)
            outcome = await layer.view(cache_only=True).search("Mali", 3, 20)
    assert calls == ["Mali", "Mali"]
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "not_cached"


async def test_an_index_of_this_machine_is_searched_each_time(index_path: Path) -> None:
    async with open_search(SearchConfig(f"index:{index_path}")) as layer:
        for _ in range(2):
            outcome = await layer.view().search("Timbuktu", 1, 20)
            assert isinstance(outcome, Found)
            assert (outcome.cache, outcome.provider) == ("miss", "index")


@pytest.mark.parametrize("url", ["http://h", "redis://u:hunter2@h:port", "redis+sentinel://h"])
async def test_a_redis_url_that_cannot_work_is_refused_without_its_password(url: str) -> None:
    config = SearchConfig("http://127.0.0.1:9/retrieve", redis_url=url)
    with pytest.raises(ConfigurationError, match="Redis") as raised:
        async with open_search(config):
            pass
    assert "hunter2" not in str(raised.value)


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="price"):
        SearchConfig("http://127.0.0.1:9/retrieve", budget=BudgetConfig(costs_usd={"retrieve": -1}))
