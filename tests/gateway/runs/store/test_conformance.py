"""Conformance of run stores: in memory, on a real Redis, a Cluster, and a master that Sentinel names."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from searchr1.gateway.runs.store import redis as redis_module
from searchr1.gateway.runs.store.base import (
    HANDED_OVER,
    LoggedEvent,
    Message,
    Orphan,
    RunForgottenError,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    RunTakenError,
    RunTooLargeError,
)
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.redis_client import open_redis
from tests.support.redis_server import free_redis_port, run_cluster, run_redis, run_sentinel

REDIS_KINDS = ("redis", "cluster", "sentinel")


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        nodes = stack.enter_context(run_cluster())
        yield {
            "redis": stack.enter_context(run_redis()).url,
            "cluster": "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes),
            "sentinel": stack.enter_context(run_sentinel()).url,
        }


def redis_store(url: str, ttl_s: float = 60) -> RedisRunStore:
    return RedisRunStore(open_redis(url), open_redis(url), ttl_s=ttl_s)


@pytest.fixture(params=["memory", *(pytest.param(kind, marks=pytest.mark.redis) for kind in REDIS_KINDS)])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RunStore]:
    kind = request.param
    opened: RunStore = MemoryRunStore(ttl_s=60, max_bytes=2**20)
    if kind != "memory":
        opened = redis_store(request.getfixturevalue("urls")[kind])
    yield opened
    await opened.aclose()


def meta(run_id: str, scope: str = "t:a", **fields: object) -> RunMeta:
    given = {"kind": "research", "created": 1, "model": "m", "question": "Où?", "replica": "r", **fields}
    return RunMeta(id=run_id, scope=scope, **given)  # type: ignore[arg-type]


def logged(*seqs: int) -> list[LoggedEvent]:
    return [LoggedEvent(seq, f'{{"seq":{seq},"text":"é"}}'.encode()) for seq in seqs]


async def test_events_come_back_in_order_from_any_position(store: RunStore) -> None:
    await store.create(meta("run_1"))
    await store.append(meta("run_1"), logged(0, 1, 2))
    await store.append(meta("run_1"), logged(3))
    await store.append(meta("run_1"), logged(4, 5))
    for after in range(-1, 7):
        assert await store.read("run_1", after, 0) == logged(*range(after + 1, 6))


async def test_a_long_log_is_read_in_portions_and_comes_whole(store: RunStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_module, "_PORTION", 2)
    await store.create(meta("run_p"))
    for seq in range(7):
        await store.append(meta("run_p"), logged(seq))
        assert list((await store.history("run_p")).events) == logged(*range(seq + 1))
        assert await store.read("run_p", -1, 0) == logged(*range(seq + 1))
    followed: list[LoggedEvent] = []
    while len(followed) < 7:
        batch = await store.read("run_p", len(followed) - 1, 5)
        assert batch
        followed += batch
    assert followed == logged(*range(7))


@pytest.mark.redis
async def test_a_log_that_is_too_large_is_not_read_whole(shared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = redis_store(shared)
    await store.create(meta("run_large"))
    await store.append(meta("run_large"), logged(0, 1, 2))
    monkeypatch.setattr(redis_module, "MAX_LOG_BYTES", sum(len(event.data) for event in logged(0, 1)))
    for reading in (store.history("run_large"), store.read("run_large", -1, 0)):
        with pytest.raises(RunTooLargeError, match="too large"):
            await reading
    await store.aclose()


async def test_an_append_that_is_repeated_changes_nothing(store: RunStore) -> None:
    await store.create(meta("run_2"))
    for _ in range(2):
        await store.append(meta("run_2"), logged(0, 1))
    await store.append(meta("run_2"), logged(2))
    await store.append(meta("run_2"), logged(2))
    assert await store.read("run_2", -1, 0) == logged(0, 1, 2)


async def test_an_append_is_repeated_with_more_events(store: RunStore) -> None:
    await store.create(meta("run_2b"))
    await store.append(meta("run_2b"), logged(0))
    await store.append(meta("run_2b"), logged(0, 1, 2))
    await store.append(meta("run_2b"), logged(1, 2, 3))
    for after in range(-1, 5):
        assert await store.read("run_2b", after, 0) == logged(*range(after + 1, 4))


async def test_events_without_those_before_them_are_refused(store: RunStore) -> None:
    await store.create(meta("run_2c"))
    await store.append(meta("run_2c"), logged(0, 1))
    with pytest.raises(RunForgottenError):
        await store.append(meta("run_2c"), logged(3))
    assert await store.read("run_2c", -1, 0) == logged(0, 1)
    with pytest.raises(RunForgottenError):
        await store.append(meta("run_unknown"), logged(0))


async def test_a_run_that_is_given_up_has_no_owner(store: RunStore) -> None:
    about = meta("run_2d")
    await store.create(about)
    await store.append(meta("run_2d"), logged(0))
    await store.abandon(about)
    await store.abandon(meta("run_unknown"))
    state = await store.state("run_2d")
    assert state is not None
    assert not await store.is_alive(state.meta.replica)
    assert await store.state("run_unknown") is None
    await store.finish(RunState(about, "completed"), b"{}")
    await store.abandon(about)
    assert await store.state("run_2d") == RunState(about, "completed")


async def test_a_run_and_its_record(store: RunStore) -> None:
    about = meta("run_3", request={"previous_run_id": None, "deep": {"a": [1, "ü"]}})
    assert await store.state("run_3") is None
    await store.create(about)
    assert await store.state("run_3") == RunState(about)
    assert await store.record("run_3") is None
    await store.append(meta("run_3"), logged(0))
    ended = RunState(about, "completed", "an answer")
    await store.finish(ended, b'{"whole": "run"}' * 1000)
    assert await store.state("run_3") == ended
    assert await store.record("run_3") == b'{"whole": "run"}' * 1000


async def test_a_listing_is_one_scopes_own_newest_first(store: RunStore) -> None:
    for number in range(5):
        await store.create(meta(f"run_l{number}", scope="t:list"))
        await asyncio.sleep(0.002)  # Redis lists by time.
    await store.create(meta("run_foreign", scope="t:other"))
    await store.create(meta("resp_1", scope="t:list", kind="response"))
    ids = [state.meta.id for state in await store.list_runs("t:list", None, 3)]
    assert ids == ["run_l4", "run_l3", "run_l2"]
    rest = [state.meta.id for state in await store.list_runs("t:list", "run_l2", 3)]
    assert rest == ["run_l1", "run_l0"]
    assert await store.list_runs("t:list", "run_none", 3) == []
    assert await store.list_runs("t:nobody", None, 3) == []


async def test_a_deleted_run_is_gone(store: RunStore) -> None:
    about = meta("run_4", scope="t:delete")
    await store.create(about)
    await store.append(meta("run_4"), logged(0))
    await store.finish(RunState(about, "completed"), b"{}")
    await store.delete(about)
    assert await store.state("run_4") is None
    assert await store.record("run_4") is None
    assert await store.read("run_4", -1, 0) == []
    assert await store.list_runs("t:delete", None, 3) == []


@pytest.mark.redis
async def test_a_reader_that_waits_gets_what_comes(urls: dict[str, str]) -> None:
    for kind in REDIS_KINDS:
        writer, reader = redis_store(urls[kind]), redis_store(urls[kind])
        await writer.create(meta("run_5"))
        waiting = asyncio.create_task(reader.read("run_5", -1, 1.5))
        await asyncio.sleep(0.05)
        await writer.append(meta("run_5"), logged(0))
        assert await waiting == logged(0)
        assert await reader.read("run_5", 0, 0.01) == []
        await writer.aclose()
        await reader.aclose()


@pytest.mark.redis
async def test_a_note_reaches_the_owner(urls: dict[str, str]) -> None:
    for kind in REDIS_KINDS:
        owner, other = redis_store(urls[kind]), redis_store(urls[kind])
        assert not await other.is_alive("owner")
        assert await owner.heartbeat("owner", 0.01) == []
        assert await other.is_alive("owner")
        waiting = asyncio.create_task(owner.heartbeat("owner", 1.5))
        await asyncio.sleep(0.05)
        await other.send_to_owner(meta("run_6", replica="owner"), "cancel")
        assert await waiting == [Message("cancel", "run_6")]
        await owner.aclose()
        await other.aclose()


@pytest.mark.redis
async def test_a_run_expires_whole(urls: dict[str, str]) -> None:
    now = 0.0
    memory = MemoryRunStore(ttl_s=1.0, max_bytes=2**20, clock=lambda: now)
    redis = redis_store(urls["redis"], ttl_s=1.0)
    about = meta("run_7", scope="t:expire")
    stores: list[RunStore] = [memory, redis]
    for store in stores:
        await store.create(about)
        await store.append(meta("run_7"), logged(0))
        await store.finish(RunState(about, "completed"), b"{}")
    now = 1.1
    await asyncio.sleep(1.1)
    for store in stores:
        assert await store.state("run_7") is None
        assert await store.read("run_7", -1, 0) == []
        assert await store.list_runs("t:expire", None, 3) == []
    await redis.aclose()


async def test_memory_drops_the_oldest_runs_that_have_ended() -> None:
    store = MemoryRunStore(ttl_s=60, max_bytes=10_000)
    running = meta("run_running")
    await store.create(running)
    for number in range(30):
        about = meta(f"run_{number}")
        await store.create(about)
        await store.finish(RunState(about, "completed"), b"x" * 1000)
    kept = [state.meta.id for state in await store.list_runs("t:a", None, 100)]
    num_ended = len(kept) - 1
    assert kept == [f"run_{number}" for number in range(29, 29 - num_ended, -1)] + ["run_running"]
    assert 5_000 < num_ended * 1000 < 10_000


async def test_a_redis_that_is_gone_is_an_error_of_the_store() -> None:
    store = redis_store(f"redis://127.0.0.1:{free_redis_port()}")
    for call in (store.create(meta("run_8")), store.state("run_8"), store.read("run_8", -1, 0)):
        with pytest.raises(RunStoreError, match="does not answer"):
            await call
    await store.aclose()


@pytest.mark.redis
@pytest.mark.parametrize("kind", REDIS_KINDS)
async def test_a_claim_stands_until_it_is_released(urls: dict[str, str], kind: str) -> None:
    one, other = redis_store(urls[kind]), redis_store(urls[kind])
    try:
        assert await one.claimed("n") is None
        assert await one.claim("n", b"1") == b"1"
        assert await other.claim("n", b"2") == b"1"
        assert await other.claimed("n") == b"1"
        await other.release("n", b"2")
        assert await other.claim("n", b"2") == b"1"
        await one.release("n", b"1")
        assert await other.claim("n", b"2") == b"2"
    finally:
        await one.aclose()
        await other.aclose()


@pytest.mark.redis
async def test_a_claim_expires(urls: dict[str, str]) -> None:
    store = redis_store(urls["redis"], ttl_s=0.05)
    try:
        await store.claim("brief", b"1")
        await asyncio.sleep(0.1)
        assert await store.claim("brief", b"2") == b"2"
    finally:
        await store.aclose()


@pytest.fixture(params=REDIS_KINDS)
def shared(request: pytest.FixtureRequest, urls: dict[str, str]) -> str:
    """The URL of a Redis of each kind."""
    return urls[request.param]


@pytest.mark.redis
async def test_of_all_that_take_a_run_one_gets_it_and_the_owner_before_is_refused(shared: str) -> None:
    stores = [redis_store(shared) for _ in range(5)]
    about = meta("run_t1", replica="gone", request={"a": 1})
    await stores[0].create(about, b"the plan")
    await stores[0].append(about, logged(0, 1), b"[0,[]]")
    assert await stores[1].plan("run_t1") == b"the plan"
    answers = await asyncio.gather(*(store.take(about, f"taker {n}") for n, store in enumerate(stores)))
    [taken] = [answer for answer in answers if answer is not None]
    assert (taken.epoch, taken.request) == (1, {"a": 1})
    state = await stores[0].state("run_t1")
    assert state is not None
    assert state.meta == taken
    assert await stores[0].take(about, taken.replica) == taken, "whoever asks twice, as the answer was lost, has it"
    late: list[Callable[[], Awaitable[None]]] = [
        lambda: stores[0].create(about, b"the plan"),
        lambda: stores[0].append(about, logged(2)),
        lambda: stores[0].finish(RunState(about, "completed"), b"{}"),
    ]
    for write in late:
        with pytest.raises(RunTakenError):
            await write()
    await stores[0].abandon(about)
    assert await stores[0].take(about, "too late") is None
    assert await stores[0].state("run_t1") == state
    await stores[1].append(taken, logged(2), b"[5,[]]")
    history = await stores[1].history("run_t1")
    assert (list(history.events), history.inputs) == (logged(0, 1, 2), (b"[0,[]]", b"[5,[]]"))
    await stores[1].finish(RunState(taken, "completed"), b"{}")
    assert await stores[1].plan("run_t1") is None
    assert await stores[1].take(taken, "too late") is None
    for store in stores:
        await store.aclose()


@pytest.mark.redis
async def test_runs_with_a_plan_are_orphans_once_their_owner_is_gone(shared: str) -> None:
    store = redis_store(shared)
    for number, plan in enumerate((b"a plan", b"a plan", None)):
        await store.create(meta(f"run_o{number}", replica="owner_o"), plan)
    await store.heartbeat("owner_o", 0.01)
    assert [one for one in await store.orphans(10) if one.replica == "owner_o"] == []
    client = open_redis(shared)
    await client.delete("sr1:replica:owner_o")
    own = {Orphan("owner_o", f"run_o{number}") for number in (0, 1)}
    assert {one for one in await store.orphans(10) if one.replica == "owner_o"} == own
    assert len([one for one in await store.orphans(1) if one.replica == "owner_o"]) == 1
    await store.disown(Orphan("owner_o", "run_o0"))
    await store.take(meta("run_o1", replica="owner_o"), "taker_o")
    assert [one for one in await store.orphans(10) if one.replica == "owner_o"] == []
    assert await client.sismember("sr1:replicas", "owner_o") == 0
    await client.aclose()
    await store.aclose()


@pytest.mark.redis
async def test_a_run_that_is_handed_over_may_be_taken_at_once_and_is_not_counted(shared: str) -> None:
    store, other = redis_store(shared), redis_store(shared)
    about = meta("run_h", replica="owner_h")
    await store.create(about, b"the plan")
    await store.append(about, logged(0), b"[0,[]]")
    await store.heartbeat("owner_h", 0.01)
    assert await store.hand_over(about)
    assert await store.hand_over(about), "whoever asks twice, as the answer was lost, has handed it over"
    assert Orphan(HANDED_OVER, "run_h") in await other.orphans(100)
    assert not await other.is_alive(HANDED_OVER)
    with pytest.raises(RunTakenError):
        await store.append(about, logged(1))
    left = replace(about, replica=HANDED_OVER)
    answers = [await other.take(left, f"taker {number}") for number in range(2)]
    assert [answer and (answer.epoch, answer.replica) for answer in answers] == [(0, "taker 0"), None]
    assert Orphan(HANDED_OVER, "run_h") not in await other.orphans(100)
    assert not await store.hand_over(about)
    assert await store.take(left, "owner_h") is None
    await store.aclose()
    await other.aclose()


@pytest.mark.redis
async def test_a_run_that_nobody_took_is_taken_back(shared: str) -> None:
    store = redis_store(shared)
    about = meta("run_k", replica="owner_k")
    await store.create(about, b"the plan")
    assert await store.hand_over(about)
    assert await store.take(replace(about, replica=HANDED_OVER), "owner_k") == about
    await store.append(about, logged(0))
    await store.create(meta("run_l", replica="owner_k"))
    assert not await store.hand_over(meta("run_l", replica="owner_k")), "without a plan nobody could go on with it"
    await store.aclose()


@pytest.mark.redis
async def test_nothing_is_sent_to_nobody(shared: str) -> None:
    store, client = redis_store(shared), open_redis(shared)
    await store.send_to_owner(meta("run_m", replica=HANDED_OVER), "read")
    assert not await client.exists(f"sr1:replica:{HANDED_OVER}:inbox")
    await client.aclose()
    await store.aclose()


@pytest.mark.redis
async def test_takers_serve_the_model_and_do_not_stop(shared: str) -> None:
    store, client = redis_store(shared), open_redis(shared)
    await store.heartbeat("taker_a", 0.01, ["m1", "m2"])
    await store.heartbeat("taker_b", 0.01, ["m2"])
    await store.heartbeat("taker_c", 0.01, ["m2"])
    await store.heartbeat("taker_d", 0.01, ["m2"])
    await store.stop_taking("taker_b")
    await store.heartbeat("taker_b", 0.01, [])
    await store.depart("taker_c")
    await client.set("sr1:replica:taker_d", b"1")  # As the release before wrote it.
    found = {one for one in await store.takers("m2") if one.startswith("taker_")}
    assert found == {"taker_a", "taker_d"}
    assert {one for one in await store.takers("m3") if one.startswith("taker_")} == {"taker_d"}
    assert await store.is_alive("taker_b")
    assert not await store.is_alive("taker_c")
    await client.delete("sr1:replica:taker_d")
    await client.aclose()
    await store.aclose()


@pytest.mark.redis
async def test_a_run_of_a_release_before_takeovers_is_nobody_s_to_take(shared: str) -> None:
    store, client = redis_store(shared), open_redis(shared)
    about = meta("run_b", replica="gone")
    await store.create(about)
    await client.delete("sr1:run:{run_b}:owner")
    assert await store.plan("run_b") is None
    assert await store.take(about, "me") is None
    with pytest.raises(RunForgottenError):
        await store.append(about, logged(0))
    await client.aclose()
    await store.aclose()


@pytest.mark.redis
async def test_appends_that_go_together_fail_each_by_itself(shared: str) -> None:
    store = redis_store(shared)
    metas = [meta(f"run_g{number}") for number in range(20)]
    for about in metas[::2]:
        await store.create(about)
    answers = await asyncio.gather(*(store.append(about, logged(0)) for about in metas), return_exceptions=True)
    assert [answer is None for answer in answers] == [number % 2 == 0 for number in range(20)]
    assert all(isinstance(answer, RunForgottenError) for answer in answers[1::2])
    await store.aclose()
