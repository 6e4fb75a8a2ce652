"""The cache on a real Redis: shared, killed, stopped, full. ``timeout_s`` is long where Redis must not be late."""

import asyncio
import contextlib
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from searchr1.redis_client import RedisClient, open_redis
from searchr1.retrieval.base import Found
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.cache.store import StoreError, StoreRefusedError
from tests.retrieval.cache.fakes import Cache, Provider, make
from tests.support.redis_server import RedisServer, run_redis

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parents[3]
UNHURRIED: dict[str, Any] = {"timeout_s": 5.0}


def cache_on(client: RedisClient, takes_s: float = 0.2, **policy: Any) -> Cache:
    return make(RedisStore(client), provider=Provider(takes_s=takes_s), **policy)


async def test_a_stampede_is_one_call(redis_client: RedisClient) -> None:
    cache = cache_on(redis_client, **UNHURRIED)
    outcomes = await asyncio.gather(*(cache.found() for _ in range(200)))
    assert cache.provider.calls == 1
    assert sorted(outcome.cache for outcome in outcomes) == ["hit"] * 199 + ["miss"]
    assert "bypass" not in cache.events.counts
    await cache.retriever.aclose()


async def test_a_stampede_on_an_entry_reads_it(redis_client: RedisClient) -> None:
    cache = cache_on(redis_client, **UNHURRIED)
    await cache.search()
    outcomes = await asyncio.gather(*(cache.found() for _ in range(200)))
    assert {outcome.cache for outcome in outcomes} == {"hit"}
    assert cache.events.take() == {"miss": 1, "hit": 200}
    await cache.retriever.aclose()


async def test_one_finds_what_another_kept(shared_redis: RedisServer, redis_client: RedisClient) -> None:
    other_client = open_redis(shared_redis.url)
    one, other = cache_on(redis_client, **UNHURRIED), cache_on(other_client, **UNHURRIED)
    first = await one.found()
    second = await other.found()
    assert (second.cache, second.passages) == ("hit", first.passages)
    assert await redis_client.dbsize() == 1
    [key] = await redis_client.keys("*")
    assert 590_000 < await redis_client.pttl(key) <= 600_000
    for cache in (one, other):
        await cache.retriever.aclose()
    await other_client.aclose()


async def test_processes_share_one_call(shared_redis: RedisServer, redis_client: RedisClient) -> None:
    command = [sys.executable, "-m", "tests.retrieval.cache.replica", shared_redis.url, "q", "100"]
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        ends = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    counts = [tuple(map(int, out.split())) for out, _ in ends]
    assert sorted(counts) == [(0, 100), (1, 100)]


async def test_no_search_fails_while_redis_is_killed_and_the_cache_comes_back(own_redis: RedisServer) -> None:
    client = open_redis(own_redis.url)
    cache = cache_on(client, takes_s=0.01, cooldown_s=0.3)

    async def load(rounds: int) -> None:
        for number in range(rounds):
            assert isinstance(await cache.search(f"q {number % 40}", deadline_s=20), Found)

    workers = [asyncio.create_task(load(100)) for _ in range(8)]
    await asyncio.sleep(0.2)
    await asyncio.to_thread(own_redis.kill)
    await asyncio.gather(*workers)
    await asyncio.sleep(0.35)
    await cache.search("while it is down")
    assert cache.events.take().get("bypass", 0) > 0
    await asyncio.to_thread(own_redis.start)
    await until_hit(cache, "after")
    await cache.retriever.aclose()
    await client.aclose()


async def until_hit(cache: Cache, query: str) -> None:
    """Search until the cache answers, as it must once its cooldown is over."""
    for _ in range(100):
        if (await cache.found(query)).cache == "hit":
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the cache is not used again")


async def test_a_redis_that_does_not_move_is_bypassed_and_poisons_no_connection(own_redis: RedisServer) -> None:
    client = open_redis(own_redis.url)
    cache = cache_on(client, takes_s=0.0, cooldown_s=0.3)
    await until_hit(cache, "a")
    await until_hit(cache, "b")
    cache.events.take()
    own_redis.send(signal.SIGSTOP)
    try:
        outcomes = await asyncio.gather(*(cache.search(query) for query in ("a", "b") * 20))
        assert all(isinstance(outcome, Found) for outcome in outcomes)
        assert cache.events.take()["bypass"] == 40
    finally:
        own_redis.send(signal.SIGCONT)
    await until_hit(cache, "a")
    for _ in range(50):
        for query in ("a", "b"):
            assert (await cache.found(query)).passages[0].title == f'"{query}"'
    await cache.retriever.aclose()
    await client.aclose()


async def test_commands_that_are_cancelled_do_not_mix_up_answers(redis_client: RedisClient) -> None:
    store = RedisStore(redis_client)
    for number in range(20):
        await store.set(f"k{number}", b"%d" % number, 60)

    async def one(number: int) -> None:
        try:
            async with asyncio.timeout(number % 7 * 1e-4):
                assert await store.get(f"k{number % 20}") == b"%d" % (number % 20)
        except TimeoutError:
            pass

    for start in range(0, 600, 30):
        await asyncio.gather(*(one(number) for number in range(start, start + 30)))
    assert [await store.get(f"k{number}") for number in range(20)] == [b"%d" % number for number in range(20)]


async def test_a_full_redis_is_read_and_not_written() -> None:
    with run_redis("maxmemory 3mb", "maxmemory-policy noeviction") as server:
        client = open_redis(server.url)
        cache = cache_on(client, takes_s=0.0, **UNHURRIED)
        await cache.search("kept")
        await fill(client)
        assert [(await cache.found(query)).cache for query in ("new", "kept", "new")] == ["miss", "hit", "miss"]
        assert cache.events.take() == {"miss": 3, "hit": 1, "bypass": 2}
        await cache.retriever.aclose()
        await client.aclose()


async def fill(client: RedisClient) -> None:
    store = RedisStore(client)
    for size in (100_000, 1000, 10):
        with contextlib.suppress(StoreRefusedError):
            for number in range(10_000):
                await store.set(f"filler {size} {number}", b"x" * size, 60)
            raise AssertionError("Redis does not get full")


async def test_a_wrong_password_bypasses_and_is_not_told(own_redis: RedisServer) -> None:
    with own_redis.client() as admin:
        admin.config_set("requirepass", "right")
    client = open_redis(own_redis.url.replace("://", "://:wrong-one@"))
    cache = cache_on(client, takes_s=0.0, **UNHURRIED)
    assert (await cache.found()).cache == "miss"
    assert cache.events.take() == {"bypass": 1, "miss": 1}
    with pytest.raises(StoreError) as caught:
        await RedisStore(client).get("k")
    assert "wrong-one" not in "".join(traceback.format_exception(caught.value))
    await cache.retriever.aclose()
    await client.aclose()
