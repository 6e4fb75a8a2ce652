"""Gateways that are told to stop under their runs: another one goes on with them, and no character is lost."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadtests.processes import Server
from searchr1_client import AsyncSearchR1
from tests.engines.pool.questions import answer_of
from tests.engines.vllm.fake_vllm import MODEL
from tests.gateway.conftest import eventually
from tests.gateway.runs.fleet import (
    CUTS,
    Asked,
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

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(240)]

NEWER = (sys.executable, str(Path(__file__).with_name("newer_release.py")), "serve")
SHORT = {"SEARCHR1_SHUTDOWN_GRACE_S": "0.2"}
PATIENT = {"SEARCHR1_SEARCH_TIMEOUT_S": "200", "SEARCHR1_SEARCH_ATTEMPTS": "1"}
"""Searches that are held back are waited for."""


@pytest.fixture
async def fleet(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with running_fleet(redis, tmp_path) as fleet:
        fleet.engine.pause_s = 0.05
        yield fleet


async def to_its_close(asked: Asked, events: list[Event]) -> None:
    """Read on to the end of the connection."""
    await asked.read(events, lambda _: False)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_stream_that_outlasts_the_grace_goes_on_elsewhere(fleet: Fleet, cut: str) -> None:
    number = 50 + list(CUTS).index(cut)
    one, other = await asyncio.gather(fleet.start(**SHORT), fleet.start())
    if cut == "in a search":
        fleet.searches.go.clear()
    events: list[Event] = []
    asked = await ask(fleet, one, number, events, CUTS[cut])
    os.kill(one.pid, signal.SIGTERM)
    await to_its_close(asked, events)
    assert not ended(events)
    fleet.searches.go.set()
    seen = len(events)
    await read(other, asked.run_id, events[-1]["seq"], events)
    assert len(events) > seen
    assert_whole(events, number)
    assert "handed over" in await fleet.stopped(one)
    assert await metric(other, "searchr1_runs_taken_over_total 1.0")
    undisturbed: list[Event] = []
    undisturbed_id = (await ask(fleet, other, number, undisturbed, ended)).run_id
    assert_equal_runs(await stored(other, asked.run_id), await stored(other, undisturbed_id))
    await eventually(lambda: fleet.engine.num_running == 0)


async def test_what_nobody_reads_goes_on_elsewhere_before_the_grace_ends(fleet: Fleet) -> None:
    limits = {"SEARCHR1_MAX_CONCURRENT_RUNS": "1", "SEARCHR1_SHUTDOWN_GRACE_S": "200"}
    one, other = await asyncio.gather(fleet.start(**limits, **PATIENT), fleet.start(**PATIENT))
    fleet.searches.go.clear()
    async with httpx.AsyncClient(timeout=60) as client:
        made = [await begin_in_background(client, one, number) for number in (60, 61)]
        await eventually(lambda: bool(fleet.searches.queries))
        os.kill(one.pid, signal.SIGTERM)
        await fleet.stopped(one)
        fleet.searches.go.set()
        for number, response_id in zip((60, 61), made, strict=True):
            response = await finished(client, other, response_id)
            assert answer_of(number) in response["output"][-1]["content"][0]["text"]
    assert await metric(other, "searchr1_runs_taken_over_total 2.0")


async def begin_in_background(client: httpx.AsyncClient, gateway: Server, number: int) -> str:
    body = {"model": MODEL, "input": f"Question number {number}: who?", "background": True}
    return str((await client.post(f"{gateway.url}/v1/responses", json=body)).json()["id"])


async def finished(client: httpx.AsyncClient, gateway: Server, response_id: str) -> Any:
    path = f"{gateway.url}/v1/responses/{response_id}"
    while (response := (await client.get(path)).json())["status"] in ("queued", "in_progress"):  # noqa: ASYNC110
        await asyncio.sleep(0.2)
    assert response["status"] == "completed", response
    return response


@pytest.mark.parametrize("num_gateways", [1, 2])
async def test_runs_end_where_no_gateway_stays(fleet: Fleet, num_gateways: int) -> None:
    gateways = await asyncio.gather(*(fleet.start(**SHORT) for _ in range(num_gateways)))
    asked: list[tuple[Asked, list[Event]]] = []
    for number, gateway in enumerate(gateways, start=70):
        events: list[Event] = []
        asked.append((await ask(fleet, gateway, number, events, some_text(1, 3)), events))
    for gateway in gateways:
        os.kill(gateway.pid, signal.SIGTERM)
    for one, events in asked:
        await to_its_close(one, events)
        assert (events[-1]["type"], events[-1]["error"]["code"]) == ("run.failed", "stopping")
    for gateway in gateways:
        await fleet.stopped(gateway)
    later = await fleet.start()
    for one, events in asked:
        again: list[Event] = []
        await read(later, one.run_id, -1, again)
        assert again == events
    await eventually(lambda: fleet.engine.num_running == 0)


async def test_all_workers_hand_over_what_they_run(fleet: Fleet) -> None:
    one, other = await asyncio.gather(fleet.start(SEARCHR1_WORKERS="2", **SHORT, **PATIENT), fleet.start(**PATIENT))
    fleet.searches.go.clear()
    streams: list[tuple[int, Asked, list[Event]]] = []
    for number in range(80, 84):
        events: list[Event] = []
        streams.append((number, await ask(fleet, one, number, events, CUTS["in a search"]), events))
    async with httpx.AsyncClient(timeout=60) as client:
        response_id = await begin_in_background(client, one, 86)
        os.kill(one.pid, signal.SIGTERM)
        for _, asked, events in streams:
            await to_its_close(asked, events)
        await fleet.stopped(one)
        fleet.searches.go.set()
        for number, asked, events in streams:
            await read(other, asked.run_id, events[-1]["seq"], events)
            assert_whole(events, number)
        assert answer_of(86) in (await finished(client, other, response_id))["output"][-1]["content"][0]["text"]
    await eventually(lambda: fleet.engine.num_running == 0)


async def test_whoever_waits_for_one_object_asks_again_and_chat_is_told(fleet: Fleet) -> None:
    one, other = await asyncio.gather(fleet.start(**SHORT, **PATIENT), fleet.start(**PATIENT))
    fleet.searches.go.clear()
    body = {"question": "Question number 90: who?", "deadline_s": 100}
    chat = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Question number 91: who?"}],
        "stream": True,
    }
    async with httpx.AsyncClient(timeout=60, headers={"Idempotency-Key": "the same"}) as client:
        waiting = asyncio.create_task(client.post(f"{one.url}/v1/research", json=body))
        chatting = asyncio.create_task(client.post(f"{one.url}/v1/chat/completions", json=chat))
        streamed = {"model": MODEL, "input": "Question number 92: who?", "stream": True}
        responding = asyncio.create_task(client.post(f"{one.url}/v1/responses", json=streamed))
        await eventually(lambda: len(fleet.searches.queries) == 3)
        os.kill(one.pid, signal.SIGTERM)
        assert (await waiting).status_code == 503
        assert '"code":"stopping"' in (await chatting).text
        *told, moved = payloads((await responding).text)
        assert (moved["type"], moved["code"]) == ("error", "moved")
        await fleet.stopped(one)
        fleet.searches.go.set()
        again = await client.post(f"{other.url}/v1/research", json=body)
        after = {"stream": "true", "starting_after": told[-1]["sequence_number"]}
        path = f"{other.url}/v1/responses/{told[0]['response']['id']}"
        told += payloads((await client.get(path, params=after)).text)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["type"] == "response.completed"
    assert answer_of(90) in again.json()["answer"]
    assert again.headers["idempotent-replayed"] == "true"
    assert await metric(other, "searchr1_runs_taken_over_total 2.0")


def payloads(body: str) -> list[Event]:
    """Return the JSON of each event in a whole stream."""
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: ")]


@asynccontextmanager
async def balancer(*gateways: Server) -> AsyncIterator[str]:
    """A balancer that gives each connection to the first gateway that takes it; yields its address."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for gateway in gateways:
            with suppress(OSError):
                url = httpx.URL(gateway.url)
                there = await asyncio.open_connection(url.host, url.port)
                await asyncio.gather(forward(reader, there[1]), forward(there[0], writer))
                return

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def test_our_sdk_comes_back_by_itself(fleet: Fleet) -> None:
    one, other = await asyncio.gather(fleet.start(**SHORT), fleet.start())
    events: list[Event] = []
    async with (
        balancer(one, other) as url,
        AsyncSearchR1(base_url=url) as client,
        client.research.stream("Question number 95: who?", deadline_s=100) as stream,
    ):
        async for event in stream:
            events.append(event.model_dump())
            if len(events) == 8:
                os.kill(one.pid, signal.SIGTERM)
        run = await stream.get_final_run()
    assert_whole(events, 95)
    assert answer_of(95) in (run.answer or "")
    await fleet.stopped(one)


async def test_a_newer_release_takes_over_from_an_older_one(fleet: Fleet) -> None:
    older, newer = await asyncio.gather(fleet.start(**SHORT), fleet.start(command=NEWER))
    events: list[Event] = []
    asked = await ask(fleet, older, 100, events, some_text(1, 3))
    os.kill(older.pid, signal.SIGTERM)
    await to_its_close(asked, events)
    await read(newer, asked.run_id, events[-1]["seq"], events)
    assert_whole(events, 100)


async def test_an_older_release_leaves_a_run_to_newer_ones(fleet: Fleet) -> None:
    older, newer = await asyncio.gather(fleet.start(), fleet.start(command=NEWER))
    events: list[Event] = []
    asked = await ask(fleet, newer, 101, events, some_text(1, 3))
    os.kill(newer.pid, signal.SIGKILL)
    reading = asyncio.create_task(read(older, asked.run_id, events[-1]["seq"], events))
    log = fleet.log(older)
    await eventually(lambda: "is not taken over here, for now: a newer release" in log.read_text())
    async with httpx.AsyncClient(base_url=older.url) as client:
        assert (await client.get(f"/v1/research/{asked.run_id}")).json()["status"] == "running"
    await fleet.start(command=NEWER)
    await reading
    assert_whole(events, 101)


async def test_a_run_that_no_newer_release_comes_for_ends(fleet: Fleet) -> None:
    older, newer = await asyncio.gather(fleet.start(), fleet.start(command=NEWER))
    events: list[Event] = []
    asked = await ask(fleet, newer, 102, events, some_text(1, 3))
    os.kill(newer.pid, signal.SIGKILL)
    with fleet.redis.client() as client:
        key = f"sr1:run:{{{asked.run_id}}}:plan"
        plan = client.get(key)
        assert isinstance(plan, bytes)
        # As if its deadline had passed an hour ago.
        client.set(key, plan.replace(b'"deadline_s":100.0', b'"deadline_s":-3600.0'), keepttl=True)
    await read(older, asked.run_id, events[-1]["seq"], events)
    assert (events[-1]["type"], events[-1]["error"]["code"]) == ("run.failed", "run_lost")
    with fleet.redis.client() as client:
        await eventually(lambda: not client.exists(key))
