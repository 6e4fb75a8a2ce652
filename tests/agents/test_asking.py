"""Agents and users, against servers that write by a script; and the gateway's engine without each of its parts."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from loadtests.agents.asking import ChatAgent, GatewayUser, LostRunError, WrongRunError, check, client, keeping
from loadtests.agents.gateway import WithoutAdmission, WithoutEarlyDispatch, WithoutExactPrefixes, WithoutStops
from loadtests.agents.retriever import serving
from loadtests.agents.script import CHECKPOINT as CHECKPOINT_VARIABLE
from loadtests.agents.trace import AgentRun, Trace
from loadtests.processes import free_port
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import SamplingParams, TellsMetrics
from searchr1.engines.scripted import ScriptedEngine
from searchr1.tokenizer import Tokenizer
from tests.agents.worlds import encode, small_trace

PARAMS = SamplingParams(max_tokens=50, stop=("</search>",))


@dataclass
class Writer:
    """A server of chat completions that writes each run's texts, and takes the ends of programs."""

    trace: Trace
    programs: list[str] = field(default_factory=list)
    released: list[str] = field(default_factory=list)

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        messages = body["messages"]
        run = next(run for run in self.trace.runs if run.question in messages[0]["content"])
        self.programs.append(body.get("program_id", ""))
        text = run.texts[len(messages) // 2]
        return web.json_response({"choices": [{"message": {"content": text}}]})

    async def release(self, request: web.Request) -> web.Response:
        self.released.append((await request.json())["program_id"])
        return web.json_response({})


@asynccontextmanager
async def served(*routes: web.RouteDef) -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(routes)
    runner, port = web.AppRunner(app), free_port()
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@pytest.fixture
def quick() -> Trace:
    """A trace whose searches take the least time."""
    return replace(small_trace(), median_s=0.01)


@pytest.mark.parametrize("releases", [False, True])
async def test_an_agent_takes_every_turn_and_search_of_its_run(quick: Trace, releases: bool) -> None:
    writer = Writer(quick)
    routes = [
        web.post("/v1/chat/completions", writer.complete),
        web.post("/programs/release", writer.release),
    ]
    run = max(quick.runs, key=lambda run: len(run.searches))
    async with served(*routes) as url, serving(quick, free_port()) as retriever, client() as http:
        await ChatAgent(http, url, retriever.url, releases=releases).ask(run)
        assert retriever.num_searches == len(run.searches) == 2
        odd = replace(run, last_text="<answer> another </answer>")
        with pytest.raises(WrongRunError, match="turn 3 ended in"):
            await ChatAgent(http, url, retriever.url, releases=releases).ask(odd)
        with pytest.raises(LostRunError, match="404"):
            await ChatAgent(http, f"{url}/nowhere", retriever.url).ask(run)
    assert writer.programs == [run.run if releases else ""] * 6
    assert writer.released == ([run.run] * 2 if releases else [])


async def test_a_query_of_no_run_finds_nothing(quick: Trace) -> None:
    async with serving(quick, free_port()) as retriever, client() as http:
        body = {"queries": ["no such query"], "topk": 3, "return_scores": True}
        async with http.post(retriever.url, json=body) as response:
            assert await response.json() == {"result": [[]]}


COMPLETED = {"type": "run.completed", "status": "completed"}


def told(run: AgentRun, *, answer: str | None = None, num_found: int | None = None) -> list[dict[str, Any]]:
    """Return the events of a run that ended, with another answer or fewer searches that found something."""
    events: list[dict[str, Any]] = []
    for number, search in enumerate(run.searches):
        found = num_found is None or number < num_found
        events += [
            {"type": "search.started", "query": search.query},
            {"type": "search.completed", "passages": [{"title": "a"}] if found else []},
        ]
    return [*events, {"type": "answer.completed", "text": run.answer if answer is None else answer}, COMPLETED]


def test_a_run_that_did_other_work_is_wrong(quick: Trace) -> None:
    [run, *_] = quick.runs
    check(run, told(run))
    for events, wrong in (
        (told(run, answer="x"), "answered \\['x'\\]"),
        (told(run, num_found=0), "found passages for 0 of"),
        (told(run)[2:], "found passages for"),
        ([COMPLETED], "answered \\[\\]"),
    ):
        with pytest.raises(WrongRunError, match=wrong):
            check(run, events)


@pytest.mark.parametrize("events", [[], [{"type": "run.failed", "error": {"code": "engine_error"}}]])
def test_a_run_that_failed_is_lost(quick: Trace, events: list[dict[str, Any]]) -> None:
    with pytest.raises(LostRunError, match="ended with"):
        check(quick.runs[0], events)


async def test_a_user_reads_the_stream_to_its_end(quick: Trace) -> None:
    [run, *_] = quick.runs
    asked = []

    async def research(request: web.Request) -> web.Response:
        asked.append(await request.json())
        events = [{"type": "think.delta", "text": "Hm"}, *told(run)]
        lines = [json.dumps({"seq": n, **event}, separators=(",", ":")) for n, event in enumerate(events)]
        return web.Response(text=": a comment\n\n" + "".join(f"event: x\ndata: {line}\n\n" for line in lines))

    async with served(web.post("/v1/research", research)) as url, client() as http:
        await GatewayUser(http, url).ask(run)
    assert asked == [{"question": run.question, "stream": True}]


async def test_an_odd_run_leaves_all_that_it_told(quick: Trace, tmp_path: Path) -> None:
    [run, other, *_] = quick.runs

    async def research(request: web.Request) -> web.Response:
        events = [{"type": "think.delta", "text": "Hm"}, *told(run, answer="x")]
        return web.Response(text="".join(f"data: {json.dumps(event, separators=(',', ':'))}\n\n" for event in events))

    async with served(web.post("/v1/research", research)) as url, client() as http:
        ask = keeping(GatewayUser(http, url).ask, lambda name: tmp_path / f"odd-{name}.json")
        with pytest.raises(WrongRunError, match="answered"):
            await ask(run)
        with pytest.raises(LostRunError, match="404"):
            await keeping(GatewayUser(http, f"{url}/nowhere").ask, lambda name: tmp_path / f"odd-{name}.json")(other)
    kept = json.loads((tmp_path / f"odd-{run.run}.json").read_text())
    assert kept["seen"] == [{"type": "think.delta", "text": "Hm"}, *told(run, answer="x")]
    assert kept["run"]["searches"][0]["query"] == run.searches[0].query
    assert "answered ['x']" in kept["told"]
    assert "404" in json.loads((tmp_path / f"odd-{other.run}.json").read_text())["told"]


async def test_a_refused_run_is_lost(quick: Trace) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=503, text="try again")

    async with served(web.post("/v1/research", refuse)) as url, client() as http:
        with pytest.raises(LostRunError, match="503: try again"):
            await GatewayUser(http, url).ask(quick.runs[0])


async def test_without_early_dispatch_a_completion_comes_whole() -> None:
    inner = ScriptedEngine([("a <search> b", " </search>")], encode=encode)
    chunks = [chunk async for chunk in WithoutEarlyDispatch(inner).generate((1,), PARAMS, session="s", priority=3)]
    assert [(chunk.text, chunk.finish) for chunk in chunks] == [("a <search> b </search>", "stop")]
    assert list(chunks[0].token_ids) == encode("a <search> b </search>")
    assert inner.requests == [((1,), PARAMS, "s", 3)]


async def test_without_stops_the_engine_is_told_none() -> None:
    inner = ScriptedEngine(["a"], encode=encode)
    assert [chunk.text async for chunk in WithoutStops(inner).generate((1,), PARAMS, session="s")] == ["a"]
    assert inner.requests[0][1] == replace(PARAMS, stop=())


async def test_without_exact_prefixes_the_whole_text_is_tokenized_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CHECKPOINT_VARIABLE, str(CHECKPOINT))
    tokenizer = Tokenizer.load(str(CHECKPOINT))
    inner = ScriptedEngine(["a"], encode=encode)
    apart = [*tokenizer.encode("Where is it? <sea"), *tokenizer.encode("rch> Mali </search>")]
    whole = tokenizer.encode("Where is it? <search> Mali </search>")
    assert apart != whole
    async for _ in WithoutExactPrefixes(inner).generate(tuple(apart), PARAMS, session="s"):
        pass
    assert inner.requests[0][0] == tuple(whole)


async def test_without_admission_an_engine_tells_no_capacity() -> None:
    engine = WithoutAdmission(ScriptedEngine(["a"], encode=encode))
    assert not isinstance(engine, TellsMetrics)
    assert (await engine.health()).ok
    assert isinstance(WithoutStops(ScriptedEngine(["a"], encode=encode)), TellsMetrics)
