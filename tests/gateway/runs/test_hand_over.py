"""The hand-over of one run on a real Redis: taken, waited for, taken back, or lost to somebody else meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from searchr1.gateway.runs import hand_over
from searchr1.gateway.runs.hand_over import HandOver
from searchr1.gateway.runs.store.base import HANDED_OVER, Message, RunMeta, RunStoreError
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.redis_client import open_redis
from tests.gateway.conftest import MODEL
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

ABOUT = RunMeta("run_x", "research", created=1, model=MODEL, question="Mali?", scope="k:", replica="ours")
LEFT = replace(ABOUT, replica=HANDED_OVER)


@pytest.fixture
async def store(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisRunStore]:
    monkeypatch.setattr(hand_over, "_TAKEN_WITHIN_S", 0.3)
    store = RedisRunStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    for replica in ("ours", "other"):
        await store.depart(replica)
    await store.delete(ABOUT)
    await store.create(ABOUT, b"the plan")
    await store.heartbeat("ours", 0.01, [MODEL])
    yield store
    await store.aclose()


@pytest.fixture
def ours(store: RedisRunStore) -> HandOver:
    def failed(error: RunStoreError) -> None:
        raise error

    return HandOver(store, "ours", sort_of=lambda model: model, on_failure=failed)


async def owner(store: RedisRunStore) -> str:
    state = await store.state(ABOUT.id)
    assert state is not None
    return state.meta.replica


async def test_another_gateway_is_called_and_takes_it(store: RedisRunStore, ours: HandOver) -> None:
    await store.heartbeat("other", 0.01, [MODEL])
    passing = asyncio.create_task(ours.passed_on(ABOUT))
    [message] = await store.heartbeat("other", 5)
    assert message == Message("take", ABOUT.id)
    assert await store.take(LEFT, "other") == replace(ABOUT, replica="other")
    assert await passing


async def test_a_gateway_without_room_is_waited_for(store: RedisRunStore, ours: HandOver) -> None:
    await store.heartbeat("other", 0.01, [MODEL])
    assert await ours.passed_on(ABOUT)
    assert await owner(store) == HANDED_OVER


async def test_what_nobody_is_left_to_take_is_taken_back(store: RedisRunStore, ours: HandOver) -> None:
    assert not await ours.passed_on(ABOUT)
    assert await owner(store) == "ours"


async def test_a_run_that_another_one_has_taken_stays_with_it(store: RedisRunStore, ours: HandOver) -> None:
    taken = await store.take(ABOUT, "other")
    assert taken is not None
    assert await ours.passed_on(ABOUT)
    assert await owner(store) == "other"
