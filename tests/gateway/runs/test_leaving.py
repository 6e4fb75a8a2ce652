"""Runs that leave their gateway on a real Redis: cancelled, forgotten or given up meanwhile, each ends in one place."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.runs.hand_over import sort_of_runs
from searchr1.gateway.runs.hub import RunHub
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import HANDED_OVER, Message, RunMeta, RunState, RunStoreError
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.identity import ANYONE
from searchr1.redis_client import open_redis
from tests.gateway.conftest import MODEL, Stage, StageEngine, eventually, running_stage
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

OTHER = "other"


class GatedStore(RedisRunStore):
    """Passes no run on until ``go`` is set."""

    def __init__(self, redis: RedisServer) -> None:
        super().__init__(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
        self.go = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def hand_over(self, meta: RunMeta) -> bool:
        """See ``RunStore.hand_over``."""
        self.is_asked.set()
        await self.go.wait()
        return await super().hand_over(meta)


@dataclass
class Gateway:
    """A gateway, and another one that is only known to the store."""

    stage: Stage
    hub: RunHub
    store: GatedStore

    async def begin(self, run_id: str) -> LiveRun:
        """Begin a run whose completion does not end, and which the store has."""
        plan = self.stage.services.default.admission.plan(
            "Mali?", RunOptions(), caller=ANYONE, run_id=run_id, stream=True
        )
        meta = RunMeta(run_id, "research", created=1, model=MODEL, question="Mali?", scope="k:")
        live = await self.hub.start(plan, meta, on_disconnect="keep")
        await eventually(lambda: self.stage.engine.num_open > 0 and not live.unstored())
        return live

    async def state(self, live: LiveRun) -> RunState | None:
        """Return what the store has of a run."""
        return await self.store.state(live.meta.id)

    def num_counted(self, status: str) -> float:
        """Return how many runs were counted that ended so."""
        labels = {"model": MODEL, "status": status}
        return self.stage.services.metrics.registry.get_sample_value("searchr1_runs_total", labels) or 0.0


@pytest.fixture
async def ours(redis: RedisServer) -> AsyncIterator[Gateway]:
    store = GatedStore(redis)
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine) as stage, RunHub(stage.services, store) as hub:
        await store.heartbeat(OTHER, 0.01, [sort_of_runs(stage.services.default)])
        yield Gateway(stage, hub, store)
        store.go.set()
        for live in hub._live.values():
            live.end()


async def test_a_run_that_is_forgotten_before_it_is_passed_on_ends_here(ours: Gateway) -> None:
    live = await ours.begin("run_forgotten")
    assert live.leave()
    await asyncio.wait_for(ours.hub._forget(live), 5)
    assert not ours.store.is_asked.is_set()
    assert await ours.state(live) is None
    assert [event.type async for batch in live.batches() for event in batch][-1] == "run.completed"
    assert (await live.run()).status == "cancelled"
    assert ours.num_counted("cancelled") == 1


async def test_a_run_that_is_cancelled_before_it_is_passed_on_ends_here_and_is_stored(ours: Gateway) -> None:
    live = await ours.begin("run_cancelled")
    assert live.leave()
    await asyncio.wait_for(live.cancel(), 5)
    await live.closed.wait()
    state = await ours.state(live)
    assert state is not None
    assert (state.status, ours.num_counted("cancelled")) == ("cancelled", 1)


async def test_a_run_that_is_forgotten_once_another_gateway_has_it_is_forgotten_there(ours: Gateway) -> None:
    live = await ours.begin("run_taken")
    assert live.leave()
    await ours.store.is_asked.wait()
    forgetting = asyncio.create_task(ours.hub._forget(live))
    await asyncio.sleep(0)
    ours.store.go.set()
    assert await ours.store.heartbeat(OTHER, 5) == [Message("take", live.meta.id)]
    taken = await ours.store.take(replace(live.meta, replica=HANDED_OVER), OTHER)
    assert taken is not None
    while Message("forget", live.meta.id) not in await ours.store.heartbeat(OTHER, 5):
        pass
    assert await ours.state(live) is not None, "its owner may still write, and so it is its owner's to delete"
    await ours.store.delete(taken)
    await asyncio.wait_for(forgetting, 5)
    assert await ours.state(live) is None


async def test_a_run_that_is_forgotten_while_it_is_nobody_s_is_forgotten(ours: Gateway) -> None:
    live = await ours.begin("run_nobody_s")
    assert live.leave()
    await ours.store.is_asked.wait()
    forgetting = asyncio.create_task(ours.hub._forget(live))
    await asyncio.sleep(0)
    ours.store.go.set()
    await asyncio.wait_for(forgetting, 5)
    assert await ours.state(live) is None
    assert await ours.store.plan(live.meta.id) is None


async def test_a_run_that_is_forgotten_while_the_store_fails_ends_for_its_readers(
    ours: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await ours.begin("run_failing")
    failed = asyncio.Event()

    async def failing(_: RunMeta) -> bool:
        failed.set()
        raise RunStoreError("the store does not answer")

    monkeypatch.setattr(ours.store, "hand_over", failing)
    assert live.leave()
    await failed.wait()
    await asyncio.wait_for(ours.hub._forget(live), 5)
    assert [event.type async for batch in live.batches() for event in batch][-1] == "run.completed"
    assert ours.num_counted("cancelled") == 1


async def test_a_run_that_another_gateway_took_from_one_that_stood_still_is_counted_there_alone(ours: Gateway) -> None:
    live = await ours.begin("run_stalled")
    assert await ours.store.take(live.meta, OTHER) is not None
    assert ours.stage.engine.hold is not None
    ours.stage.engine.hold.set()
    ours.stage.engine.hold.clear()  # The next completion waits again.
    await asyncio.wait_for(live.closed.wait(), 5)
    assert live.is_lost
    assert (ours.num_counted("cancelled"), ours.num_counted("completed")) == (0, 0)


async def test_gateways_that_stop_together_do_not_count_on_each_other(
    ours: Gateway, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = await ours.begin("run_together")
    stop_taking = RedisRunStore.stop_taking

    async def slow(store: RedisRunStore, replica: str) -> None:
        await asyncio.sleep(0.1)
        await stop_taking(store, replica)

    monkeypatch.setattr(RedisRunStore, "stop_taking", slow)
    await asyncio.gather(ours.hub.stop_taking(), ours.hub.leave(), ours.store.stop_taking(OTHER))
    assert not live.is_leaving


@pytest.mark.parametrize("differs_in", ["format", "ids"])
async def test_a_gateway_that_serves_the_model_otherwise_is_left_nothing(ours: Gateway, differs_in: str) -> None:
    name, profile, print_of_ids = sort_of_runs(ours.stage.services.default).split(" ")
    sort = f"{name} another {print_of_ids}" if differs_in == "format" else f"{name} {profile} {'0' * 12}"
    await ours.store.depart(OTHER)
    await ours.store.heartbeat(OTHER, 0.01, [MODEL, sort])
    live = await ours.begin(f"run_{differs_in}")
    await ours.hub.leave()
    assert not live.is_leaving
