"""Fifty streams on two gateways with one Redis, whose clients leave, come back elsewhere and cancel as dice fall."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.loop.types import TokenIds
from tests.gateway.conftest import ANSWER_TURN, SEARCH_TURN, Stage, StageEngine, eventually, running_stage, sse_payloads
from tests.gateway.runs.store.test_faults import assert_everything_expires
from tests.support.redis_server import RedisServer, run_redis

pytestmark = pytest.mark.redis
NUM_RUNS = 50
PARTS = 24


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@dataclass
class UnevenEngine(StageEngine):
    """Each run searches once and then answers, in pieces that come after waits of different lengths."""

    dice: random.Random = field(default_factory=lambda: random.Random(0))
    sessions: set[str] = field(default_factory=set)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        text = ANSWER_TURN if session in self.sessions else SEARCH_TURN
        self.sessions.add(session)
        text = text.replace("<think>", "<think> " + "well " * PARTS)
        self.num_open += 1
        try:
            words = text.split(" ")
            for i, word in enumerate(words):
                await asyncio.sleep(self.dice.random() * 0.03)
                last = i == len(words) - 1
                yield Chunk(word if last else word + " ", (i,), "stop" if last else None)
        finally:
            self.num_open -= 1


class Client:
    """One run's reader: what it saw, over all its connections."""

    def __init__(self, stages: tuple[Stage, Stage], seed: int) -> None:
        self._stages = stages
        self._dice = random.Random(seed)
        self.run_id = ""
        self.events: list[dict[str, Any]] = []
        self.fate = self._dice.choice(["stay", "stay", "wander", "wander", "wander", "cancel", "leave"])

    @property
    def has_ended(self) -> bool:
        """True once the terminal event came."""
        return bool(self.events) and self.events[-1]["type"] in ("run.completed", "run.failed")

    async def go(self) -> None:
        """Ask, and read to the end, or to where this client leaves for good."""
        body = {"question": f"Which currency is used in Mali? {self.fate}", "stream": True}
        patience = 10_000 if self.fate == "stay" else self._dice.randrange(1, PARTS)
        stage = self._dice.choice(self._stages)
        async with stage.client.stream("POST", "/v1/research", json=body) as response:
            assert response.status_code == 200
            self.run_id = response.headers["x-run-id"]
            await self._read(response, patience)
        if self.fate == "cancel":
            await self._cancel()
        while not self.has_ended and self.fate != "leave":
            await self._resume()

    async def _resume(self) -> None:
        await asyncio.sleep(self._dice.random() * 0.2)
        stage = self._dice.choice(self._stages)
        headers = {"Last-Event-ID": str(self.events[-1]["seq"])} if self.events else {}
        path = f"/v1/research/{self.run_id}/events"
        async with stage.client.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            await self._read(response, self._dice.randrange(1, PARTS))

    async def _read(self, response: httpx.Response, at_most: int) -> None:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                self.events.append(json.loads(line[6:]))
                at_most -= 1
            if at_most == 0:
                return

    async def _cancel(self) -> None:
        paths = [self._dice.choice(self._stages).client.post(f"/v1/research/{self.run_id}/cancel") for _ in range(2)]
        for response in await asyncio.gather(*paths):
            assert response.status_code == 200
            assert response.json()["status"] in ("cancelled", "completed")


async def test_whatever_clients_do_each_run_has_one_whole_log(redis: RedisServer) -> None:
    before = asyncio.all_tasks()
    settings: dict[str, Any] = {"redis_url": redis.url, "resume_grace_s": 3, "max_run_tokens": 4000}
    engines = UnevenEngine(dice=random.Random(1)), UnevenEngine(dice=random.Random(2))
    async with running_stage(engine=engines[0], **settings) as one, running_stage(engine=engines[1], **settings) as two:
        clients = [Client((one, two), seed) for seed in range(NUM_RUNS)]
        await asyncio.gather(*(client.go() for client in clients))
        assert {client.fate for client in clients} == {"stay", "wander", "cancel", "leave"}
        for stage, engine in zip((one, two), engines, strict=True):
            await eventually(lambda stage=stage: stage.services.default.seats.num_running == 0)  # type: ignore[misc]
            assert engine.num_open == 0
        for client in clients:
            await assert_one_log(client, (one, two))
    left = {task for task in asyncio.all_tasks() - before if "_shutdown_watcher" not in repr(task.get_coro())}
    assert left == set()
    assert_everything_expires(redis)


async def assert_one_log(client: Client, stages: tuple[Stage, Stage]) -> None:
    """Both gateways tell the same, which is what the client saw, each event once."""
    logs = []
    for stage in stages:
        response = await stage.client.get(f"/v1/research/{client.run_id}/events")
        logs.append([json.loads(data) for data in sse_payloads(response.text)])
    log = logs[0]
    assert logs[1] == log
    assert [event["seq"] for event in log] == list(range(len(log)))
    assert [event["type"] for event in log if event["type"].startswith("run.")] == ["run.started", "run.completed"]
    assert log[-1]["type"] == "run.completed"
    assert client.events == log[: len(client.events)]
    if client.fate != "leave":
        assert client.events == log
    may_be_cancelled = client.fate in ("cancel", "leave")
    assert log[-1]["status"] in ({"completed", "cancelled"} if may_be_cancelled else {"completed"})


async def test_a_redis_that_loses_everything_amid_streams_costs_no_event(redis: RedisServer) -> None:
    settings: dict[str, Any] = {"redis_url": redis.url, "resume_grace_s": 30}
    engines = UnevenEngine(dice=random.Random(1)), UnevenEngine(dice=random.Random(2))
    async with running_stage(engine=engines[0], **settings) as one, running_stage(engine=engines[1], **settings) as two:
        pairs = [(one, two), (two, one)] * 10
        following = [asyncio.create_task(follow_elsewhere(*pair)) for pair in pairs]
        await asyncio.sleep(0.6)
        await asyncio.to_thread(redis.kill)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(redis.start)
        for events in await asyncio.gather(*following):
            assert [event["seq"] for event in events] == list(range(len(events)))
            assert events[-1]["status"] == "completed"


async def follow_elsewhere(owner: Stage, other: Stage) -> list[dict[str, Any]]:
    """Ask ``owner``, read all on ``other``, and come back until the last event is there."""
    body = {"question": "Which currency is used in Mali?", "stream": True}
    async with owner.client.stream("POST", "/v1/research", json=body) as response:
        path = f"/v1/research/{response.headers['x-run-id']}/events"
    events: list[dict[str, Any]] = []
    while not events or events[-1]["type"] not in ("run.completed", "run.failed"):
        after = events[-1]["seq"] if events else -1
        response = await other.client.get(path, params={"after": after})
        assert response.status_code in (200, 404, 503), response.text  # Until the owner has sent it all again.
        if response.status_code == 200:
            events += [json.loads(data) for data in sse_payloads(response.text)]
        await asyncio.sleep(0.1)
    return events
