"""Redis servers of one module, or of one test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from searchr1.redis_client import RedisClient, open_redis
from tests.support.redis_server import RedisServer, run_redis


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    """A redis-server for a whole module; its tests begin with it empty."""
    with run_redis() as server:
        yield server


@pytest.fixture
async def redis_client(shared_redis: RedisServer) -> AsyncIterator[RedisClient]:
    client = open_redis(shared_redis.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A redis-server that the test may kill."""
    with run_redis() as server:
        yield server
