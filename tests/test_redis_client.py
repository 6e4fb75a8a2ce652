import asyncio
import traceback
from typing import Any

import pytest
from redis.asyncio import RedisCluster, SSLConnection
from redis.asyncio.connection import UnixDomainSocketConnection

from searchr1.errors import ConfigurationError
from searchr1.redis_client import answered, open_redis
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.cache.store import StoreError

SECRET = "hunter2"


def options(url: str) -> dict[str, Any]:
    client = open_redis(url)
    assert not isinstance(client, RedisCluster)
    kwargs: dict[str, Any] = client.connection_pool.connection_kwargs
    return kwargs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache.example", {"host": "cache.example", "port": 6379, "db": 0}),
        ("redis://u:p%40ss@cache.example:7000/3", {"username": "u", "password": "p@ss", "port": 7000, "db": 3}),
        ("redis://:pass@cache.example", {"password": "pass"}),
        ("redis://cache.example?db=2", {"db": 2}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("rediss://cache.example?ssl_ca_certs=/ca.pem", {"ssl_ca_certs": "/ca.pem"}),
        ("unix:///run/redis.sock?db=1", {"path": "/run/redis.sock", "db": 1}),
        ("unix://u:pass@/run/redis.sock", {"path": "/run/redis.sock", "username": "u", "password": "pass"}),
    ],
)
async def test_a_url_becomes_the_arguments_of_a_connection(url: str, expected: dict[str, Any]) -> None:
    found = options(url)
    assert {name: found.get(name) for name in expected} == expected


async def test_the_scheme_chooses_the_connection() -> None:
    kinds = {}
    for url in ("redis://a", "rediss://a", "unix:///a"):
        client = open_redis(url)
        assert not isinstance(client, RedisCluster)
        kinds[url] = client.connection_pool.connection_class
    assert kinds["rediss://a"] is SSLConnection
    assert kinds["unix:///a"] is UnixDomainSocketConnection
    assert kinds["redis://a"] not in (SSLConnection, UnixDomainSocketConnection)


async def test_sentinels_get_their_own_login_and_the_master_its_own() -> None:
    client = open_redis(
        "rediss+sentinel://u:p@s1.example,s2.example:7000/my%20cache/2?sentinel_username=su&sentinel_password=sp"
    )
    assert not isinstance(client, RedisCluster)
    pool: Any = client.connection_pool
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("my cache", 2)
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("u", "p")
    sentinels = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    assert [(s.connection_kwargs["host"], s.connection_kwargs["port"]) for s in sentinels] == [
        ("s1.example", 26379),
        ("s2.example", 7000),
    ]
    assert {(s.connection_kwargs["username"], s.connection_kwargs["password"]) for s in sentinels} == {("su", "sp")}
    assert {s.connection_class for s in sentinels} == {SSLConnection}
    await client.aclose()


async def test_a_cluster_is_found_through_any_of_its_hosts() -> None:
    client = open_redis("redis+cluster://:pass@a.example,b.example:7001")
    assert isinstance(client, RedisCluster)
    nodes = client.nodes_manager.startup_nodes.values()
    assert sorted((node.host, node.port) for node in nodes) == [("a.example", 6379), ("b.example", 7001)]
    assert {node.connection_kwargs["password"] for node in nodes} == {"pass"}
    await client.aclose()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "scheme is ''"),
        (f"http://:{SECRET}@host", "scheme is 'http'"),
        (f"redis+magic://:{SECRET}@host", "scheme is 'redis+magic'"),
        (f"unix+cluster://:{SECRET}@host", "scheme is 'unix+cluster'"),
        (f"redis://:{SECRET}/slash@host", "malformed"),
        (f"redis://:{SECRET}@host:port", "malformed"),
        (f"redis://:{SECRET}#x@host", "'#'"),
        (f"redis://:{SECRET}@host/{SECRET}", "not a number"),
        (f"redis://:{SECRET}@", "names no host"),
        (f"redis://:{SECRET}@a,b", "too many"),
        (f"redis://:{SECRET}@[::1", "malformed"),
        (f"redis://host?password={SECRET}", "option that is not known"),
        (f"unix://:{SECRET}@run/redis.sock", "three slashes"),
        ("unix:///", "three slashes"),
        (f"redis+sentinel://:{SECRET}@host", "names no service"),
        (f"redis+sentinel://:{SECRET}@a,,b/cache", "names no host"),
        (f"redis+cluster://:{SECRET}@host/1", "no databases"),
    ],
)
async def test_a_url_that_cannot_work_is_refused_without_quoting_it(url: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_redis(url)
    assert says in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


async def test_an_error_of_the_store_holds_no_password() -> None:
    client = open_redis(f"redis://:{SECRET}@127.0.0.1:1")
    with pytest.raises(StoreError) as caught:
        await RedisStore(client).get("k")
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    await client.aclose()


async def swallowing(error: Exception | None = None) -> str:
    """Wait for ever; a cancellation ends it with an answer, or with ``error``, as redis-py's sends may end."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if error is not None:
            raise error from None
    return "answer"


@pytest.mark.parametrize("error", [None, ConnectionError("closed")])
async def test_a_swallowed_cancellation_still_ends_the_task(error: Exception | None) -> None:
    async def loop() -> None:
        while True:
            await answered(swallowing(error))

    looping = asyncio.create_task(loop())
    await asyncio.sleep(0)
    looping.cancel()
    await asyncio.wait({looping}, timeout=5)
    assert looping.cancelled()


async def test_a_task_that_cleans_up_after_a_cancellation_gets_its_answer() -> None:
    async def answer() -> str:
        return "answer"

    async def cleaning() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await answered(answer())
        return "never"

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "answer"
