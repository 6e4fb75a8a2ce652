"""Gateways that are killed or stopped under their runs: another one goes on with them, and no character is lost."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from loadtests.processes import Server, free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from tests.engines.deterministic import decode, encode, sampled
from tests.engines.pool.questions import answer_of, completion_of
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, serve_fake_vllm
from tests.gateway.conftest import eventually
from tests.support.redis_server import RedisServer, run_redis

pytestmark = [pytest.mark.process, pytest.mark.redis, pytest.mark.timeout(180)]


def model(prompt_ids: Sequence[int], params: SamplingParams) -> list[Chunk]:
    """Write what ``questions`` has for the question, after whatever of it is in the prompt."""
    text = decode(tuple(prompt_ids))
    found = re.search(r"Question number (\d+)(.*)", text, re.DOTALL)
    if found is None:
        return sampled(prompt_ids, encode("yes"), params)
    turn = 1 + found[2].count("</information>")
    whole = encode(completion_of(int(found[1]), turn))
    done = next(n for n in range(len(whole), -1, -1) if list(prompt_ids[len(prompt_ids) - n :]) == whole[:n])
    return sampled(prompt_ids, whole[done:], params)


@dataclass
class Searches:
    """A search server: ``wait`` holds answers back."""

    queries: list[str] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.queries += (body := await request.json())["queries"]
        await self.go.wait()
        passage = {"document": {"id": "1", "contents": f'"A title"\nWhat is found: {"long " * 30}'}, "score": 1.5}
        return web.json_response({"result": [[passage] for _ in body["queries"]]})


@asynccontextmanager
async def serve_searches() -> AsyncIterator[Searches]:
    searches = Searches()
    searches.go.set()
    app = web.Application()
    app.router.add_post("/retrieve", searches.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    searches.url = f"http://127.0.0.1:{runner.addresses[0][1]}/retrieve"
    try:
        yield searches
    finally:
        searches.go.set()
        await runner.cleanup()


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@dataclass
class Fleet:
    """Gateways with one Redis, one engine and one search server."""

    engine: FakeVllm
    searches: Searches
    redis: RedisServer
    folder: Path
    stack: ExitStack
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def start(self, **environment: str) -> Server:
        """Start a gateway and return it once it is ready."""
        port = free_port()
        given = {
            "SEARCHR1_MODEL": MODEL,
            "SEARCHR1_ENGINE_URL": self.engine.url,
            "SEARCHR1_TOKENIZER": str(CHECKPOINT),
            "SEARCHR1_RETRIEVER": self.searches.url,
            "SEARCHR1_REDIS_URL": self.redis.url,
            "SEARCHR1_PORT": str(port),
            "SEARCHR1_RESUME_GRACE_S": "60",
            "SEARCHR1_STREAM_INTERVAL_MS": "0",
            "SEARCHR1_DRAIN_S": "0",
            **environment,
        }
        log = self.folder / f"{port}.log"
        gateway = running(searchr1("serve"), port, ready="/readyz", log=log, timeout_s=60, environment=given)
        return await asyncio.to_thread(self.stack.enter_context, gateway)


@pytest.fixture
async def fleet(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as servers:
        engine = await servers.enter_async_context(serve_fake_vllm((), encode=encode, model=model))
        engine.max_model_len = 8192
        searches = await servers.enter_async_context(serve_searches())
        with ExitStack() as stack:
            running_fleet = Fleet(engine, searches, redis, tmp_path, stack)
            yield running_fleet
            for client in running_fleet.clients:
                await client.aclose()
            await asyncio.to_thread(stack.close)


Event = dict[str, Any]
Until = Callable[[list[Event]], bool]


async def read(gateway: Server, run_id: str, after: int, events: list[Event]) -> None:
    """Read a run's events after ``after`` to the end of the stream."""
    headers = {"Last-Event-ID": str(after)} if after >= 0 else {}
    path = f"{gateway.url}/v1/research/{run_id}/events"
    async with httpx.AsyncClient(timeout=60) as client, client.stream("GET", path, headers=headers) as stream:
        assert stream.status_code == 200, await stream.aread()
        events += [json.loads(line[6:]) async for line in stream.aiter_lines() if line.startswith("data: ")]


@dataclass
class Asked:
    """A question that was asked, and its open connection."""

    run_id: str
    lines: AsyncIterator[str]

    async def read(self, events: list[Event], until: Until) -> None:
        async for line in self.lines:
            if line.startswith("data: "):
                events.append(json.loads(line[6:]))
            if until(events):
                return


async def ask(fleet: Fleet, gateway: Server, number: int, events: list[Event], until: Until) -> Asked:
    """Ask question ``number`` and read until ``until``."""
    body = {"question": f"Question number {number}: who?", "stream": True, "deadline_s": 100}
    client = httpx.AsyncClient(base_url=gateway.url, timeout=60)
    fleet.clients.append(client)
    stream = await client.send(client.build_request("POST", "/v1/research", json=body), stream=True)
    assert stream.status_code == 200, await stream.aread()
    asked = Asked(stream.headers["x-run-id"], stream.aiter_lines())
    await asked.read(events, until)
    return asked


async def stored(gateway: Server, run_id: str) -> Any:
    """Return a run once it has ended."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        while (run := (await client.get(f"/v1/research/{run_id}")).json())["trajectory"] is None:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return run


def ended(events: list[Event]) -> bool:
    return bool(events) and events[-1]["type"] in ("run.completed", "run.failed")


def assert_whole(events: list[Event], number: int) -> None:
    """The events are those of an undisturbed run, each one once."""
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["status"]) == ("run.completed", "completed"), events[-1]
    kinds = [event["type"] for event in events if event["type"] not in ("think.delta", "answer.delta", "run.queued")]
    assert kinds == ["run.started", "search.started", "search.completed", "answer.completed", "run.completed"]
    for turn in (1, 2):
        text = "".join(e["text"] for e in events if e["type"] == "think.delta" and e["turn"] == turn)
        thought = re.search(r"<think>(.*)</think>", completion_of(number, turn), re.DOTALL)
        assert thought is not None
        assert text.strip() == thought[1].strip()
    answer = "".join(event["text"] for event in events if event["type"] == "answer.delta")
    assert answer.strip() == answer_of(number)
    times = [event["t_ms"] for event in events]
    assert times == sorted(times)


def ids_of(run: dict[str, Any]) -> list[Any]:
    return [[one["kind"], one["token_ids"], one["sampled_ids"]] for one in run["trajectory"]["segments"]]


def assert_equal_runs(run: dict[str, Any], undisturbed: dict[str, Any]) -> None:
    assert ids_of(run) == ids_of(undisturbed)
    for name in ("answer", "status", "citations"):
        assert run[name] == undisturbed[name]
    timeless = [{**step, "duration_ms": 0, "cache": None, "age_s": None} for step in run["steps"]]
    assert timeless == [{**step, "duration_ms": 0, "cache": None, "age_s": None} for step in undisturbed["steps"]]
    for name in ("prompt_tokens", "completion_tokens", "observation_tokens", "reasoning_tokens", "turns", "searches"):
        assert run["usage"][name] == undisturbed["usage"][name], name
    searches = [[search["query"], search["passages"]] for search in run["trajectory"]["searches"]]
    assert searches == [[search["query"], search["passages"]] for search in undisturbed["trajectory"]["searches"]]


def some_text(turn: int, num: int) -> Until:
    return lambda events: sum(e["type"] == "think.delta" and e["turn"] == turn for e in events) >= num


def searching(events: list[Event]) -> bool:
    return any(event["type"] == "search.started" for event in events)


CUTS: dict[str, Until] = {
    "in the first turn": some_text(1, 4),
    "in a search": searching,
    "in the second turn": some_text(2, 6),
    "in the answer": lambda events: any(event["type"] == "answer.delta" for event in events),
}


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


async def metric(gateway: Server, line: str) -> bool:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return line in (await client.get("/metrics")).text


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
    assert (await stored(gateway, run_id))["error"]["code"] == "takeovers_exhausted"
