"""Takeovers that meet faults in their middle: whoever asked leaves, the store fails, the server is full."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import msgspec
import pytest

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.access.stored_plan import decode_plan, encode_plan
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store import redis as redis_store
from searchr1.gateway.runs.store.base import History, LoggedEvent, RunMeta, RunState, RunStoreError
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.gateway.runs.takeover import WAITING, Takeovers, stored_plan_of
from searchr1.identity import ANYONE
from searchr1.redis_client import open_redis
from tests.gateway.conftest import MODEL, Stage, running_stage
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis

GONE = RunMeta("run_gone", "research", created=1, model=MODEL, question="Mali?", scope="k:", replica="gone")
OURS = "ours"


class FaultyStore(RedisRunStore):
    """Does what the test says once a run's history is asked for again."""

    num_histories = 0
    on_second: Callable[[History], History] = staticmethod(lambda history: history)
    gate: asyncio.Event | None = None

    async def history(self, run_id: str) -> History:
        """See ``RunStore.history``."""
        self.num_histories += 1
        history = await super().history(run_id)
        if self.num_histories != 2:
            return history
        if self.gate is not None:
            await self.gate.wait()
        return self.on_second(history)


@dataclass
class Taker:
    """A gateway's takeovers, and the runs that came of them."""

    stage: Stage
    store: FaultyStore
    runs: dict[str, LiveRun] = field(default_factory=dict)
    driving: list[asyncio.Task[None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.takeovers = Takeovers(
            self.stage.services, self.store, OURS, live=self.runs.get, adopt=self.adopt, on_failure=lambda _: None
        )

    def adopt(self, live: LiveRun, free_seat: Callable[[], None]) -> None:
        """Drive a run."""
        self.runs[live.meta.id] = live
        self.driving.append(asyncio.create_task(live.drive_to_end()))
        self.driving[-1].add_done_callback(lambda _: free_seat())

    async def state(self) -> RunState:
        """Return what the store has of the run."""
        state = await self.store.state(GONE.id)
        assert state is not None
        return state


@pytest.fixture
async def taker(redis: RedisServer) -> AsyncIterator[Taker]:
    store = FaultyStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    async with running_stage(max_concurrent_runs=1) as stage:
        plan = stage.services.default.admission.plan("Mali?", RunOptions(), caller=ANYONE, run_id=GONE.id, stream=True)
        await store.delete(replace(GONE, replica=OURS))
        await store.create(GONE, encode_plan(stored_plan_of(plan, grace_s=None)))
        taker = Taker(stage, store)
        yield taker
        for live in taker.runs.values():
            live.end()
        await asyncio.gather(*taker.driving)
    await store.aclose()


async def test_whoever_asked_may_leave_and_the_run_goes_on(taker: Taker) -> None:
    taker.store.gate = asyncio.Event()
    asking = asyncio.create_task(taker.takeovers.take(GONE))
    while taker.store.num_histories < 2:  # noqa: ASYNC110 (the store has no event for it)
        await asyncio.sleep(0.01)
    asking.cancel()
    await asyncio.wait([asking])
    taker.store.gate.set()
    await taker.takeovers.settled()
    assert await taker.takeovers.own(GONE.id) is taker.runs[GONE.id]
    assert not taker.takeovers.is_unfinished(GONE.id)
    assert (await taker.state()).meta.replica == OURS


async def test_what_failed_once_the_run_was_ours_is_begun_again(taker: Taker) -> None:
    def failing(_: History) -> History:
        raise RunStoreError("the store does not answer")

    taker.store.on_second = failing
    with pytest.raises(RunStoreError):
        await taker.takeovers.take(GONE)
    assert taker.takeovers.is_unfinished(GONE.id)
    assert (await taker.state()).meta.replica == OURS
    await taker.takeovers._look()
    assert GONE.id in taker.runs
    assert not taker.takeovers.is_unfinished(GONE.id)
    assert (await taker.state()).meta.epoch == 2


async def test_a_run_that_can_t_be_read_once_it_is_ours_is_given_up(taker: Taker) -> None:
    taker.store.on_second = lambda history: replace(history, events=(LoggedEvent(0, b"no event"), *history.events))
    assert await taker.takeovers.take(GONE) is None
    assert taker.takeovers.is_unfinished(GONE.id)
    taker.store.on_second, taker.store.num_histories = (lambda history: history), 0
    await taker.store.delete(replace(GONE, replica=OURS))
    await taker.takeovers._look()
    assert not taker.takeovers.is_unfinished(GONE.id)
    assert taker.runs == {}


async def test_a_run_whose_log_no_run_fills_is_given_up(
    taker: Taker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await taker.store.append(GONE, [LoggedEvent(0, b"x" * 101)])
    monkeypatch.setattr(redis_store, "MAX_LOG_BYTES", 100)
    assert await taker.takeovers.take(GONE) is None
    assert not taker.takeovers.is_unfinished(GONE.id)
    assert "its log is too large" in caplog.text


async def test_a_full_server_reads_nothing_of_a_run_that_it_has_no_room_for(taker: Taker) -> None:
    with taker.stage.services.default.seats.seat(ANYONE):
        assert await taker.takeovers.take(GONE) is WAITING
    assert taker.store.num_histories == 0
    assert (await taker.state()).meta.replica == "gone"


async def test_a_run_that_was_taken_over_is_timed_from_its_request(taker: Taker) -> None:
    data = await taker.store.plan(GONE.id)
    assert data is not None
    await taker.store.delete(GONE)
    await taker.store.create(GONE, encode_plan(msgspec.structs.replace(decode_plan(data), started_at=time.time() - 10)))
    await taker.takeovers.take(GONE)
    await asyncio.gather(*taker.driving)
    of_run, value = {"model": MODEL}, taker.stage.services.metrics.registry.get_sample_value
    assert value("searchr1_run_seconds_count", of_run) == 1
    assert (value("searchr1_run_seconds_sum", of_run) or 0) >= 10
    assert not value("searchr1_first_text_seconds_count", of_run)
    assert not value("searchr1_queue_seconds_count", {**of_run, "outcome": "started"})
