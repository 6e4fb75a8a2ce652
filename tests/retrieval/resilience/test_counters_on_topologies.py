"""Budgets on a real Cluster of three nodes, and on a master behind real Sentinels that is lost."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from searchr1.redis_client import open_redis
from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import BudgetedRetriever, Budgets
from searchr1.retrieval.resilience.counted_along import CountedAlong
from searchr1.retrieval.resilience.counters import CounterError, MemoryCounters, Quota, Refused, Spend
from searchr1.retrieval.resilience.redis_counters import RedisCounters
from tests.retrieval.resilience.fakes import Notes, Script, found
from tests.retrieval.resilience.test_budget import Account
from tests.support.redis_server import RedisServer, SentinelSetup, run_cluster, run_redis, run_sentinel
from tests.support.tls_proxy import run_proxy

pytestmark = pytest.mark.redis

UNHURRIED: dict[str, Any] = {"timeout_s": 5.0, "late_timeout_s": 10.0}
_LONGEST_S = 60.0
TENANTS = ("", "acme", "a{b}c", "}{", *(f"tenant {number}" for number in range(9)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[RedisServer]]:
    with run_cluster() as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def empty(request: pytest.FixtureRequest) -> None:
    if "cluster" in request.fixturenames:
        for node in request.getfixturevalue("cluster"):
            with node.client() as client:
                client.flushall()


@pytest.fixture
def sentinel() -> Iterator[SentinelSetup]:
    with run_sentinel() as setup:
        yield setup


@pytest.fixture
async def stack() -> Any:
    async with AsyncExitStack() as stack:
        yield stack


def url_of(nodes: list[RedisServer]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


def in_redis(stack: AsyncExitStack, url: str, **arguments: Any) -> RedisCounters:
    client = open_redis(url)
    stack.push_async_callback(client.aclose)
    return RedisCounters(client, **arguments)


def counters(stack: AsyncExitStack, url: str, **arguments: Any) -> CountedAlong:
    return CountedAlong(in_redis(stack, url, **arguments))


def budgets(store: CountedAlong | MemoryCounters, **config: Any) -> Budgets:
    return Budgets(store, BudgetConfig({"web": 0.01}, **config), observer=Notes())


async def search(budgets: Budgets, account: Account | None = None) -> str:
    script = Script([found(provider="web")])
    outcome = await BudgetedRetriever(script, budgets, account or Account()).search("q", 3, 10)
    return outcome.kind if isinstance(outcome, SearchFailed) else "found"


def spent(servers: list[RedisServer], tenant: str = "acme") -> list[int]:
    """Searches on each counter of ``tenant``."""
    counts = []
    for server in servers:
        with server.client() as client:
            keys = client.scan_iter(f"searchr1:budget:{{t:{tenant}}}:*")
            counts += [int(client.hget(key, "searches") or 0) for key in keys]
    return sorted(counts)


async def until(holds: Callable[[], bool]) -> None:
    ends_s = time.monotonic() + _LONGEST_S
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < ends_s, "it does not come to pass"
        await asyncio.sleep(0.1)


async def until_answers(budgets: Budgets, *outcomes: str) -> None:
    """Search until one of ``outcomes``, as must come once Redis is well again."""
    ends_s = time.monotonic() + _LONGEST_S
    while await search(budgets) not in outcomes:
        assert time.monotonic() < ends_s, f"never {outcomes}"
        await asyncio.sleep(0.05)


class Keys(MemoryCounters):
    """Counters that note the keys of their last operation."""

    keys: tuple[str, ...] = ()

    async def reserve(self, quotas: Any, spend: Any, window_s: float) -> Refused | None:
        self.keys = tuple(quota.key for quota in quotas)
        return await super().reserve(quotas, spend, window_s)


@given(tenant=st.text(), key_id=st.text())
async def test_the_counters_of_a_caller_share_a_slot(tenant: str, key_id: str) -> None:
    store = Keys()
    await search(budgets(store, per_key=5, per_tenant=5), Account(tenant, key_id))
    assert len(set(store.keys)) == 2
    assert len({key_slot(key.encode()) for key in store.keys}) == 1


async def test_replicas_share_the_budgets_of_all_tenants_on_a_cluster(
    cluster: list[RedisServer], stack: AsyncExitStack
) -> None:
    limits = {"per_key": 5, "usd_per_tenant": 0.07}
    stores = [counters(stack, url_of(nodes), **UNHURRIED) for nodes in (cluster, cluster[1:], cluster[2:])]
    replicas = [budgets(store, **limits) for store in stores]
    for tenant in TENANTS:
        by_key = []
        for key_id in ("one", "two"):
            outcomes = await asyncio.gather(*(search(replica, Account(tenant, key_id)) for replica in replicas * 5))
            by_key.append((outcomes.count("found"), outcomes.count("budget")))
        assert by_key == [(5, 10), (2, 13)]
    assert [store.outages for store in stores] == [0, 0, 0]
    on_each = [sum(bool(spent([node], f"tenant {number}")) for number in range(9)) for node in cluster]
    assert sum(on_each) == 9
    assert min(on_each) > 0


async def test_what_a_search_did_not_cost_is_given_back_on_a_cluster(
    cluster: list[RedisServer], stack: AsyncExitStack
) -> None:
    limited = budgets(counters(stack, url_of(cluster), **UNHURRIED), per_key=5, per_tenant=5)
    cached = Script([Found((), cache="hit", provider="web")])
    for _ in range(10):
        assert isinstance(await BudgetedRetriever(cached, limited, Account()).search("q", 3, 10), Found)
    assert spent(cluster) == [0, 0]
    assert [await search(limited) for _ in range(6)] == ["found"] * 5 + ["budget"]


async def test_a_redis_that_takes_longer_to_reach_than_to_answer_is_used(stack: AsyncExitStack) -> None:
    server = stack.enter_context(run_redis())
    proxy = await stack.enter_async_context(run_proxy(server.port, hesitates_s=0.2))
    store = counters(stack, f"redis://127.0.0.1:{proxy.port}", cooldown_s=0.0)
    limited = budgets(store, per_key=2)
    assert await search(limited) == "found"
    assert store.outages >= 1
    await until_answers(limited, "budget")
    await until_counted(limited, server, [2])


async def test_a_lost_node_costs_no_search(cluster: list[RedisServer], stack: AsyncExitStack) -> None:
    store = counters(stack, url_of(cluster), cooldown_s=0.05)
    limited = budgets(store, per_key=10_000, per_tenant=10_000)
    await until_answers(limited, "found")
    before = store.outages
    await asyncio.to_thread(cluster[0].kill)
    outcomes = set()
    for number in range(30):
        outcomes.add(await search(limited, Account(f"tenant {number}")))
        await asyncio.sleep(0.02)
    assert store.outages > before
    assert "budget" not in outcomes
    await asyncio.to_thread(cluster[0].start)
    await until_all_are_counted(limited, store)


async def test_a_slot_that_moves_takes_its_counters_along(cluster: list[RedisServer], stack: AsyncExitStack) -> None:
    store = counters(stack, url_of(cluster), timeout_s=5, cooldown_s=0.0)
    limited = budgets(store, per_key=7, per_tenant=9)
    for _ in range(3):
        assert await search(limited) == "found"
    slot = key_slot(b"{t:acme}")
    source = next(node for node in cluster if spent([node]))
    target = next(node for node in cluster if node is not source)
    with source.client() as giver, target.client() as taker:
        ids = [client.execute_command("CLUSTER MYID").decode() for client in (giver, taker)]
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
        giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
        keys = list(giver.scan_iter("*{t:acme}*"))
        assert len(keys) == 2
        giver.execute_command("MIGRATE", "127.0.0.1", target.port, keys[0], 0, 5000)
        assert await search(limited) == "found"  # one counter here, one there: Redis says TRYAGAIN
        giver.execute_command("MIGRATE", "127.0.0.1", target.port, keys[1], 0, 5000)
        assert await search(limited) == "found"  # ASK
        for client in (taker, giver):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
    assert not spent([source])
    await until_answers(limited, "budget")
    assert 7 in spent([target])
    assert await search(limited, Account("acme", "two")) == "found"


@pytest.mark.parametrize("loss", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_failover_keeps_what_was_spent(
    sentinel: SentinelSetup, stack: AsyncExitStack, loss: signal.Signals
) -> None:
    store = counters(stack, sentinel.url, cooldown_s=0.1)
    limited = budgets(store, per_key=6, usd_per_tenant=9.0)
    await until(lambda: has_role(sentinel.replica, b"slave"))
    while max([0, *await asyncio.to_thread(spent, [sentinel.master])]) < 3:
        assert await search(limited) == "found"
    await until(lambda: spent([sentinel.replica]) == spent([sentinel.master]))
    sentinel.master.send(loss)
    before = store.outages
    outcomes = [await search(limited) for _ in range(10)]
    assert outcomes.count("found") <= 3
    assert outcomes[-1] == "budget"
    assert store.outages > before
    await until(lambda: has_role(sentinel.replica, b"master"))
    await until_counted(limited, sentinel.replica, [6, 6])
    if loss == signal.SIGSTOP:
        sentinel.master.send(signal.SIGCONT)
        await until(lambda: has_role(sentinel.master, b"slave") and spent([sentinel.master]) == [6, 6])
        assert await search(limited) == "budget"
        assert spent([sentinel.replica]) == [6, 6]


async def test_without_any_sentinel_a_process_holds_limits_by_itself(stack: AsyncExitStack) -> None:
    redis = in_redis(stack, "redis+sentinel://127.0.0.1:1,127.0.0.1:2/cache")
    limited = budgets(CountedAlong(redis), per_key=1)
    assert [await search(limited) for _ in range(3)] == ["found", "budget", "budget"]
    with pytest.raises(CounterError):
        await redis.reserve([Quota("key", "{t}:key", 1, None)], Spend(1, 0), 60)


async def until_counted(limited: Budgets, server: RedisServer, counts: list[int]) -> None:
    """Search until Redis was told of all that was spent while it did not answer."""
    ends_s = time.monotonic() + _LONGEST_S
    while await asyncio.to_thread(spent, [server]) != counts:
        assert time.monotonic() < ends_s, "it was never told"
        assert await search(limited) == "budget"
        await asyncio.sleep(0.05)


async def until_all_are_counted(limited: Budgets, store: CountedAlong) -> None:
    """Search for tenants of all nodes until there is no outage any more."""
    ends_s = time.monotonic() + _LONGEST_S
    outages = -1
    while outages != store.outages:
        assert time.monotonic() < ends_s, "budgets are not enforced again"
        await asyncio.sleep(0.1)
        outages = store.outages
        assert {await search(limited, Account(f"tenant {number}")) for number in range(30)} <= {"found", "budget"}


def has_role(server: RedisServer, role: bytes) -> bool:
    with suppress(ConnectionError), server.client() as client:
        return bool(client.role()[0] == role)
    return False
