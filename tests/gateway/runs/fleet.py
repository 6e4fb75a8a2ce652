"""Gateways in processes of their own, with one Redis, one engine and one search server, and what is asked of them."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from aiohttp import web

from loadtests.processes import Server, free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams
from tests.engines.deterministic import decode, encode, sampled
from tests.engines.pool.questions import answer_of, completion_of
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, serve_fake_vllm
from tests.support.redis_server import RedisServer

SERVE = tuple(searchr1("serve"))


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


@dataclass
class Fleet:
    """Gateways with one Redis, one engine and one search server."""

    engine: FakeVllm
    searches: Searches
    redis: RedisServer
    folder: Path
    stack: ExitStack
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def start(self, *, command: Sequence[str] = SERVE, **environment: str) -> Server:
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
        gateway = running(command, port, ready="/readyz", log=log, timeout_s=120, environment=given)
        return await asyncio.to_thread(self.stack.enter_context, gateway)

    def log(self, gateway: Server) -> Path:
        """Return the file of a gateway's log."""
        return self.folder / f"{urlsplit(gateway.url).port}.log"

    async def stopped(self, gateway: Server) -> str:
        """Wait for the end of a gateway that was told to stop, in good order; return its log."""
        ended = await asyncio.to_thread(os.waitid, os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        log = self.log(gateway).read_text()
        assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0), log
        assert "Traceback" not in log
        return log


@asynccontextmanager
async def running_fleet(redis: RedisServer, folder: Path) -> AsyncIterator[Fleet]:
    """Run the engine and the search server of a fleet; what was started of gateways is stopped at the end."""
    async with AsyncExitStack() as servers:
        engine = await servers.enter_async_context(serve_fake_vllm((), encode=encode, model=model))
        engine.max_model_len = 8192
        searches = await servers.enter_async_context(serve_searches())
        with ExitStack() as stack:
            fleet = Fleet(engine, searches, redis, folder, stack)
            yield fleet
            for client in fleet.clients:
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


async def metric(gateway: Server, line: str) -> bool:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return line in (await client.get("/metrics")).text
