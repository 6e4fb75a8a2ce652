"""Gateways that are killed under their runs: another one goes on with them, and no character is lost."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.engines.pool.questions import answer_of
from tests.engines.vllm.fake_vllm import MODEL
from tests.gateway.conftest import eventually
from tests.gateway.runs.fleet import (
    CUTS,
    Event,
    Fleet,
    ask,
    assert_equal_runs,
    assert_whole,
    ended,
    metric,
    read,
    running_fleet,
    some_text,
    stored,
)
from tests.support.redis_server import RedisServer

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(180)]


@pytest.fixture
async def fleet(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running_fleet(redis, tmp_path) as fleet:
        yield fleet


@pytest.mark.parametrize("cut", CUTS)
async def test_a_killed_gateway_s_run_goes_on_elsewhere(fleet: Fleet, cut: str) -> None:
    number = list(CUTS).index(cut)
    fleet.engine.pause_s = 0.05
    one, other = await asyncio.gather(fleet.start(), fleet.start())
    if cut == "in a search":
        fleet.searches.go.clear()
    events: list[Event] = []
    run_id = (await ask(fleet, one, number, events, CUTS[cut])).run_id
    os.kill(one.pid, signal.SIGKILL)
    fleet.searches.go.set()
    seen = len(events)
    await read(other, run_id, events[-1]["seq"], events)
    assert len(events) > seen
    assert_whole(events, number)
    undisturbed: list[Event] = []
    undisturbed_id = (await ask(fleet, other, number, undisturbed, ended)).run_id
    assert_whole(undisturbed, number)
    assert_equal_runs(await stored(other, run_id), await stored(other, undisturbed_id))
    async with httpx.AsyncClient(base_url=other.url) as client:
        assert "searchr1_runs_taken_over_total 1.0" in (await client.get("/metrics")).text
    await eventually(lambda: fleet.engine.num_running == 0)


async def test_runs_that_nobody_reads_are_found_and_one_in_the_queue_too(fleet: Fleet) -> None:
    fleet.engine.pause_s = 0.05
    limits = {"SEARCHR1_MAX_CONCURRENT_RUNS": "1", "SEARCHR1_MAX_QUEUED_RUNS": "4"}
    one, other = await asyncio.gather(fleet.start(**limits), fleet.start(**limits))
    running_events: list[Event] = []
    queued_events: list[Event] = []
    first = await ask(fleet, one, 10, running_events, some_text(1, 3))
    second = await ask(
        fleet, one, 11, queued_events, lambda events: events[-1:] != [] and events[-1]["type"] == "run.queued"
    )
    os.kill(one.pid, signal.SIGKILL)
    while not await metric(other, "searchr1_runs_taken_over_total 2.0"):  # noqa: ASYNC110 (another process's work)
        await asyncio.sleep(0.2)
    for asked, events, number in ((first, running_events, 10), (second, queued_events, 11)):
        await read(other, asked.run_id, events[-1]["seq"], events)
        assert_whole(events, number)


async def test_a_response_in_the_background_goes_on_and_a_run_that_is_deleted_does_not(fleet: Fleet) -> None:
    fleet.engine.pause_s = 0.05
    one, other = await asyncio.gather(fleet.start(), fleet.start())
    body = {"model": MODEL, "input": "Question number 40: who?", "background": True}
    events: list[Event] = []
    async with httpx.AsyncClient(timeout=60) as client:
        made = (await client.post(f"{one.url}/v1/responses", json=body)).json()
        deleted = (await ask(fleet, one, 41, events, some_text(1, 3))).run_id
        os.kill(one.pid, signal.SIGKILL)
        answers = [await client.delete(f"{other.url}/v1/research/{deleted}") for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 404]
        path = f"{other.url}/v1/responses/{made['id']}"
        while (response := (await client.get(path)).json())["status"] in ("queued", "in_progress"):  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        streamed = (await client.get(path, params={"stream": "true"})).text
    assert response["status"] == "completed"
    assert answer_of(40) in response["output"][-1]["content"][0]["text"]
    assert streamed.rstrip().count("event: response.completed") == 1
    with fleet.redis.client() as redis_client:
        assert redis_client.keys(f"*{deleted}*") == []


async def test_a_gateway_that_stood_still_says_nothing_more_of_a_run_that_it_lost(fleet: Fleet) -> None:
    fleet.engine.pause_s = 0.05
    one, other = await asyncio.gather(fleet.start(), fleet.start())
    events: list[Event] = []
    asked = await ask(fleet, one, 20, events, some_text(1, 4))
    os.kill(one.pid, signal.SIGSTOP)
    try:
        await read(other, asked.run_id, events[-1]["seq"], events)
        assert_whole(events, 20)
        run = await stored(other, asked.run_id)
    finally:
        os.kill(one.pid, signal.SIGCONT)
    late: list[Event] = []
    await asked.read(late, lambda _: False)
    assert not ended(late)
    assert [events[event["seq"]] for event in late] == late
    again: list[Event] = []
    await read(one, asked.run_id, -1, again)
    assert again == events
    assert await stored(one, asked.run_id) == run
    await eventually(lambda: fleet.engine.num_running == 0)


async def test_a_run_that_outlived_too_many_gateways_fails(fleet: Fleet) -> None:
    fleet.engine.pause_s = 0.6
    gateway = await fleet.start()
    events: list[Event] = []
    run_id = (await ask(fleet, gateway, 30, events, some_text(1, 1))).run_id
    with fleet.redis.client() as client:
        client.set(f"sr1:run:{{{run_id}}}:owner", "3 gone")
        state = json.loads(client.get(f"sr1:run:{{{run_id}}}:state") or b"")
        state["meta"] |= {"replica": "gone", "request": {**state["meta"]["request"], "store_epoch": 3}}
        client.set(f"sr1:run:{{{run_id}}}:state", json.dumps(state))
    await eventually(lambda: fleet.engine.num_running == 0)  # Its owner sees that it is another's.
    await read(gateway, run_id, events[-1]["seq"], events)
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["error"]["code"]) == ("run.failed", "takeovers_exhausted")
    assert events[-1]["usage"]["completion_tokens"] > 0
    assert (await stored(gateway, run_id))["error"]["code"] == "takeovers_exhausted"
