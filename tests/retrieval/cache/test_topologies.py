"""The cache on a real Cluster of three nodes, and on a master behind real Sentinels that is lost."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from searchr1.redis_client import open_redis
from searchr1.retrieval.base import Found
from searchr1.retrieval.cache.redis import RedisStore
from tests.retrieval.cache.fakes import UNAVAILABLE, Cache, Provider, make
from tests.support.redis_server import RedisServer, SentinelSetup, run_cluster, run_sentinel

pytestmark = pytest.mark.redis
UNHURRIED: dict[str, Any] = {"timeout_s": 5.0}


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    with run_cluster() as nodes:
        yield nodes


@pytest.fixture
def sentinel() -> Iterator[SentinelSetup]:
    with run_sentinel() as setup:
        yield setup


def url_of(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def keys_on(node: RedisServer) -> int:
    with node.client() as client:
        return len(client.keys("sr1:search:*"))


async def test_entries_spread_over_a_cluster_and_are_shared(cluster: list[RedisServer]) -> None:
    clients = [open_redis(url_of(cluster)), open_redis(url_of(cluster[2:]))]
    one, other = (make(RedisStore(client), **UNHURRIED) for client in clients)
    for number in range(30):
        assert (await one.found(f"q {number}")).cache == "miss"
        assert (await other.found(f"q {number}")).cache == "hit"
    counts = [await asyncio.to_thread(keys_on, node) for node in cluster]
    assert sum(counts) == 30
    assert min(counts) > 0
    for cache in (one, other):
        assert "bypass" not in cache.events.counts
        await cache.retriever.aclose()
    for client in clients:
        await client.aclose()


async def test_the_lock_works_on_a_cluster(cluster: list[RedisServer]) -> None:
    clients = [open_redis(url_of(cluster)) for _ in range(2)]
    caches = [make(RedisStore(client), provider=Provider(takes_s=0.5), **UNHURRIED) for client in clients]
    outcomes = await asyncio.gather(*(cache.found("stampede") for cache in caches for _ in range(100)))
    assert sum(cache.provider.calls for cache in caches) == 1
    assert len({outcome.passages for outcome in outcomes}) == 1
    for cache in caches:
        cache.provider.outcome = UNAVAILABLE
    assert set(await asyncio.gather(*(cache.search("it fails") for cache in caches))) == {UNAVAILABLE}
    assert sum(cache.provider.calls for cache in caches) == 2
    for cache in caches:
        await cache.retriever.aclose()
    for client in clients:
        await client.aclose()


async def test_a_cluster_that_loses_a_node_fails_no_search(cluster: list[RedisServer]) -> None:
    client = open_redis(url_of(cluster))
    cache = make(RedisStore(client), cooldown_s=0.2)
    await until_hit(cache, "before")
    await asyncio.to_thread(cluster[0].kill)
    for number in range(100):
        assert isinstance(await cache.search(f"lost {number}"), Found)
    assert cache.events.take()["bypass"] > 0
    await asyncio.to_thread(cluster[0].start)
    for query in ("a", "b", "c", "d", "e", "f"):
        await until_hit(cache, query)
    await cache.retriever.aclose()
    await client.aclose()


async def test_a_failover_fails_no_search_and_the_new_master_is_found(sentinel: SentinelSetup) -> None:
    client = open_redis(sentinel.url)
    cache = make(RedisStore(client), cooldown_s=0.2)
    await until_hit(cache, "before")
    with sentinel.replica.client() as replica:
        await asyncio.to_thread(sentinel.master.kill)
        cache.events.take()
        for number in range(20):
            assert isinstance(await cache.search(f"lost {number}"), Found)
        assert cache.events.take()["bypass"] > 0
        await until_hit(cache, "after")
        assert (await asyncio.to_thread(replica.role))[0] == b"master"
        assert (await asyncio.to_thread(replica.dbsize)) > 0
    await cache.retriever.aclose()
    await client.aclose()


async def until_hit(cache: Cache, query: str) -> None:
    """Search until the cache answers, as it must once Redis is well again."""
    ends_s = time.monotonic() + 30
    while (await cache.found(query)).cache != "hit":
        assert time.monotonic() < ends_s, "the cache is not used again"
        await asyncio.sleep(0.1)
