"""Capacity that several share, over a real Redis or in one process: how it is divided, and what a failure leaves."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.factory import open_engine
from searchr1.gateway.runs import capacity_board
from searchr1.gateway.runs.capacity_board import Board, LocalBoard, RedisBoard
from searchr1.gateway.runs.shared_capacity import SharedCapacity, open_shared_capacity
from searchr1.redis_client import open_redis
from searchr1.scheduling.shares import Demand, Part
from searchr1.settings import Settings
from tests.engines.deterministic import encode, sampled
from tests.engines.vllm.fake_vllm import MODEL, serve_fake_vllm
from tests.gateway.conftest import Stage, eventually, running_stage
from tests.support.redis_server import RedisServer

WHOLE, FLOOR = 10_000, 500


@dataclass
class Process:
    """One process, as the others see it: what its runs need of the replica ``name``, and what waits for room."""

    shared: SharedCapacity
    name: str
    charged: int = 0
    waiting: int = 0
    part: Part = field(default=Part(0, 0))

    async def round(self) -> Part:
        demand = Demand(0, 0, {self.name: self.charged}, self.waiting)
        self.part = (await self.shared.parts_of_replicas({self.name: WHOLE}, demand))[self.name]
        return self.part

    def start_runs(self) -> None:
        """Start what waits, as far as there is room."""
        started = min(self.waiting, max(0, self.part.meant - self.charged))
        self.charged, self.waiting = self.charged + started, self.waiting - started


Place = RedisServer | LocalBoard
"""Where the board is: in a Redis, or in this process."""


@pytest.fixture(params=["redis", "local"])
def place(request: pytest.FixtureRequest, redis: RedisServer) -> Place:
    return redis if request.param == "redis" else LocalBoard()


def board_of(place: Place) -> Board:
    return place if isinstance(place, LocalBoard) else RedisBoard(open_redis(place.url))


@asynccontextmanager
async def processes(place: Place, number: int, name: str) -> AsyncIterator[list[Process]]:
    async with AsyncExitStack() as stack:
        opened = [SharedCapacity(board_of(place), floor_tokens=FLOOR) for _ in range(number)]
        for shared in opened:
            stack.push_async_callback(shared.aclose)
        yield [Process(shared, name) for shared in opened]


async def rounds(all_of_them: Sequence[Process], number: int = 3) -> None:
    for _ in range(number):
        for process in all_of_them:
            await process.round()


async def test_one_alone_gets_the_whole_once_others_had_time_to_speak_up(place: Place) -> None:
    async with processes(place, 1, "http://alone:1") as [one]:
        one.waiting = 100
        assert await one.round() == Part(FLOOR, FLOOR)
        assert await one.round() == Part(WHOLE, WHOLE)


async def test_shares_follow_demand_and_an_idle_one_keeps_the_floor(place: Place) -> None:
    async with processes(place, 3, "http://three:1") as three:
        busy, busier, idle = three
        busy.waiting, busier.waiting = 10_000, 20_000
        await rounds(three, 4)
        assert busy.part.meant + busier.part.meant + idle.part.meant <= WHOLE
        assert idle.part == Part(FLOOR, FLOOR)
        assert busier.part.meant == pytest.approx(2 * busy.part.meant, rel=0.1)


async def test_a_newcomer_waits_for_what_others_still_need(place: Place) -> None:
    async with processes(place, 2, "http://newcomer:1") as both:
        old, new = both
        old.charged = 9_000
        await rounds([old])
        new.waiting = 9_000
        await rounds(both)
        assert old.part.meant == pytest.approx(WHOLE / 2, rel=0.01), "it starts no more runs"
        assert old.part.held == 9_000, "those that it has go on"
        assert new.part.held == 1_000
        old.charged = 4_000
        await rounds(both)
        assert new.part.held > 5_000


async def test_together_they_never_hold_more_than_the_whole(place: Place) -> None:
    chance = random.Random(7)
    async with processes(place, 4, "http://random:1") as four:
        for _ in range(400):
            process = chance.choice(four)
            process.waiting += chance.choice([0, 0, 300, 3_000])
            process.charged = max(0, process.charged - chance.choice([0, 0, 300, 5_000]))
            await process.round()
            process.start_runs()
            assert sum(one.part.held for one in four) <= WHOLE
            assert sum(one.charged for one in four) <= WHOLE


async def test_what_a_dead_one_held_comes_back(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity_board, "LEASE_S", 0.2)
    async with processes(redis, 2, "http://dead:1") as both:
        one, other = both
        one.waiting = other.waiting = 9_000
        await rounds(both)
        while one.part.held < WHOLE:
            await one.round()
            await asyncio.sleep(0.02)


async def test_one_that_ends_gives_its_part_back_at_once(place: Place) -> None:
    async with processes(place, 1, "http://ends:1") as [one]:
        async with processes(place, 1, "http://ends:1") as [other]:
            one.waiting = other.waiting = 9_000
            await rounds([one, other])
            assert one.part.held < WHOLE
        await rounds([one], 2)
        assert one.part.held == WHOLE


async def test_an_emptied_redis_hears_of_all_before_anyone_gets_more(redis: RedisServer) -> None:
    async with processes(redis, 3, "http://emptied:1") as three:
        *old, new = three
        for process in old:
            process.waiting = 9_000
        await rounds(old)
        before = [process.part for process in old]
        with redis.client() as client:
            client.flushall()
        new.waiting = 9_000
        await rounds([new, *old], 1)
        assert all(process.part.held <= part.held for process, part in zip(old, before, strict=True))
        assert new.part.held == FLOOR
        assert sum(process.part.held for process in three) <= WHOLE


async def test_without_an_answer_each_keeps_what_it_had(caplog: pytest.LogCaptureFixture) -> None:
    async def never() -> Any:
        raise ConnectionError("no Redis here")

    async with processes_of_silence(never) as (known, unknown):
        assert (await known.round()).held == 6_000
        assert await unknown.round() == Part(WHOLE // 4, WHOLE // 4), "one gateway of at most four"
    assert caplog.text.count("The balance of capacity with other processes fails") == 2


@asynccontextmanager
async def processes_of_silence(never: Any) -> AsyncIterator[tuple[Process, Process]]:
    class Client:
        """A Redis that answers as often as it is told to."""

        def __init__(self, *answers: list[Any]) -> None:
            self.answers = list(answers)

        async def eval(self, *_: Any) -> Any:
            return self.answers.pop(0) if self.answers else await never()

        async def hdel(self, *_: Any) -> None:
            await never()

        async def aclose(self) -> None:
            pass

    clients: list[Any] = [Client([6_000, b"other", 3_000]), Client()]
    known, unknown = (
        Process(SharedCapacity(RedisBoard(client), floor_tokens=FLOOR), "http://r:1") for client in clients
    )
    await known.round()
    yield known, unknown
    for process in (known, unknown):
        await process.shared.aclose()


async def test_announcements_of_another_release_are_passed_over(redis: RedisServer) -> None:
    async with processes(redis, 1, "http://newer:1") as [one]:
        await one.round()
        with redis.client() as client:
            [key] = [key for key in client.scan_iter("sr1:share:*") if client.hlen(key) == 1 and client.hkeys(key)]
            client.hset(key, "newer", "2 something else")
            client.hset(key, "broken", b"\xff")
        one.waiting = 9_000
        assert await one.round() == Part(WHOLE, WHOLE)


async def test_workers_of_one_gateway_share_its_runs_and_two_gateways_do_not(redis: RedisServer) -> None:
    async with AsyncExitStack() as stack:
        opened = []
        for gateway in ("one", "one", "two"):
            shared = SharedCapacity(
                RedisBoard(open_redis(redis.url)), floor_tokens=FLOOR, gateway=gateway, num_workers=2
            )
            stack.push_async_callback(shared.aclose)
            opened.append(shared)
        demand = Demand(num_admitted=0, num_runs=100, charged_tokens={}, unplaced_tokens=0)
        for _ in range(3):
            parts = [await shared.part_of_runs(31, demand) for shared in opened]
        assert [part.meant for part in parts] == [15, 15, 30], "one is left for a worker that is not here"


async def test_a_worker_that_comes_later_finds_its_share(redis: RedisServer) -> None:
    idle = Demand(num_admitted=0, num_runs=0, charged_tokens={}, unplaced_tokens=0)
    async with AsyncExitStack() as stack:
        first, second = (
            SharedCapacity(RedisBoard(open_redis(redis.url)), floor_tokens=FLOOR, gateway="later", num_workers=2)
            for _ in range(2)
        )
        for shared in (first, second):
            stack.push_async_callback(shared.aclose)
        for _ in range(3):
            assert await first.part_of_runs(100, idle) == Part(50, 50)
        assert await second.part_of_runs(100, idle) == Part(50, 50)
        busy = Demand(num_admitted=50, num_runs=500, charged_tokens={}, unplaced_tokens=0)
        await second.aclose()
        assert (await first.part_of_runs(100, busy)).meant < 100, "something is left for one that comes back"


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ({"engine_url": "http://e:1", "redis_url": "redis://r:1"}, True),
        ({"engine_url": "http://e:1"}, False),
        ({"redis_url": "redis://r:1"}, False),
    ],
)
async def test_nothing_is_shared_without_redis_or_with_an_engine_of_its_own(
    given: Mapping[str, str], shares: bool
) -> None:
    settings = Settings.model_validate({"model": "m", "retriever": "index:none", **given})
    shared = open_shared_capacity(settings)
    assert (shared is not None) is shares
    if shared is not None:
        await shared.aclose()


async def test_two_machines_do_not_mean_the_same_engine_by_a_loopback_address(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with processes(redis, 2, "http://127.0.0.1:8000") as both:
        for machine, process in zip(("pod-1", "pod-2"), both, strict=True):
            monkeypatch.setattr("socket.gethostname", lambda machine=machine: machine)
            process.waiting = 9_000
            await rounds([process], 2)
            assert process.part.held == WHOLE


# Whole gateways


SAID = "<answer> Bamako </answer>"


async def test_two_gateways_never_send_an_engine_more_than_it_holds(redis: RedisServer) -> None:
    most_tokens = 0

    def model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
        nonlocal most_tokens  # All runs are alike.
        most_tokens = max(most_tokens, fake.num_running * (len(prompt_ids) + len(SAID)))
        return sampled(prompt_ids, encode(SAID), params)

    async with AsyncExitStack() as stack:
        fake = await stack.enter_async_context(
            serve_fake_vllm((), encode=lambda text: list(text.encode()), model=model)
        )
        fake.num_blocks, fake.pause_s = 700, 0.02
        whole = 16 * fake.num_blocks
        given: dict[str, Any] = {
            "engine_url": fake.url,
            "redis_url": redis.url,
            "max_turns": 1,
            "max_observation_tokens": 350,
        }
        stages = []
        for _ in range(2):
            settings = Settings.model_validate({"model": MODEL, "retriever": "index:none", **given})
            engine: Any = await stack.enter_async_context(open_engine(settings.engine_config()))
            stages.append(await stack.enter_async_context(running_stage(engine=engine, max_queued_runs=64, **given)))
        for stage in stages:
            await eventually(lambda stage=stage: _meant(stage) > whole / 4)  # type: ignore[misc]
        told = [(await stage.client.get("/metrics")).text for stage in stages]
        answers = await asyncio.gather(
            *(stage.client.post("/v1/research", json={"question": "Mali?"}) for stage in stages for _ in range(30))
        )
    assert [answer.json()["answer"] for answer in answers] == ["Bamako"] * 60
    assert whole / 2 < most_tokens <= whole
    assert whole / 2 < sum(_sample(text, "searchr1_engine_share_tokens") for text in told) <= whole


def _meant(stage: Stage) -> int:
    return max((part.meant for part in stage.services.default.seats._parts.values()), default=0)


def _sample(metrics: str, name: str) -> float:
    [line] = [line for line in metrics.splitlines() if line.startswith(f"{name}{{")]
    return float(line.split()[1])


async def test_a_replica_that_is_gone_is_left_to_the_others(place: Place) -> None:
    async with processes(place, 2, "http://gone:1") as both:
        one, other = both
        one.charged = 9_000
        await rounds([one])
        assert await one.shared.parts_of_replicas({}, Demand(0, 0, {}, 0)) == {}
        other.waiting = WHOLE
        await rounds([other])
        assert other.part == Part(WHOLE, WHOLE)
