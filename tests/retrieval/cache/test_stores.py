"""The conformance suite of byte stores, in memory and in Redis."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from searchr1.redis_client import open_redis
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.cache.store import ByteStore
from tests.support.redis_server import RedisServer

KEY = "sr1:search:v1:{abc}"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.redis)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ByteStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    server: RedisServer = request.getfixturevalue("shared_redis")
    client = open_redis(server.url)
    await client.flushall()
    yield RedisStore(client)
    await client.aclose()


async def test_a_key_without_a_value(store: ByteStore) -> None:
    assert await store.get(KEY) is None


async def test_any_bytes_come_back_as_they_were_set(store: ByteStore) -> None:
    for value in (b"", bytes(range(256)), b"\r\n$-1\r\n", b"x" * 300_000):
        await store.set(KEY, value, 60)
        assert await store.get(KEY) == value


async def test_the_last_value_wins_and_other_keys_are_left_alone(store: ByteStore) -> None:
    await store.set(KEY, b"old", 60)
    await store.set(f"{KEY}:lock", b"other", 60)
    await store.set(KEY, b"new", 60)
    assert (await store.get(KEY), await store.get(f"{KEY}:lock")) == (b"new", b"other")


async def test_a_value_ends_with_its_ttl(store: ByteStore) -> None:
    await store.set(KEY, b"short", 0.001)
    await store.set(f"{KEY}:long", b"long", 60)
    await asyncio.sleep(0.01)
    assert await store.get(KEY) is None
    assert await store.get(f"{KEY}:long") == b"long"


async def test_one_of_many_gets_a_claim(store: ByteStore) -> None:
    holders = await asyncio.gather(*(store.claim(KEY, f"token {number}", 60) for number in range(20)))
    assert len(set(holders)) == 1
    assert await store.claim(KEY, "late", 60) == holders[0]


async def test_only_its_holder_releases_a_claim(store: ByteStore) -> None:
    assert await store.claim(KEY, "mine", 60) == "mine"
    await store.release(KEY, "yours")
    assert await store.claim(KEY, "yours", 60) == "mine"
    await store.release(KEY, "mine")
    assert await store.claim(KEY, "yours", 60) == "yours"


async def test_a_release_without_a_claim_is_nothing(store: ByteStore) -> None:
    await store.release(KEY, "mine")
    assert await store.get(KEY) is None


async def test_a_claim_that_is_not_released_ends_with_its_ttl(store: ByteStore) -> None:
    await store.claim(KEY, "dead", 0.001)
    await asyncio.sleep(0.01)
    assert await store.claim(KEY, "next", 60) == "next"
