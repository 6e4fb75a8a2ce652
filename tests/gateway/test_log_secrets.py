"""The log of a real server through requests and errors of all kinds: ids in each line, nothing of what was asked."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web

from loadtests.processes import free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.tokenizer import Tokenizer
from tests.engines.vllm.fake_vllm import MODEL, Answer, FakeVllm, Fault, serve_fake_vllm

pytestmark = pytest.mark.process

SECRET = "zebra"
"""In all that no line may hold: questions, queries, passages, answers, keys, credentials."""
KEY, ADMIN_KEY, WRONG_KEY = (f"{SECRET}-{name}-0123456789abcdef0123456789" for name in ("key", "admin", "wrong"))
QUESTION = f"Where does the {SECRET} live?"
TURNS = (
    [f"<think> Where is the {SECRET}? </think> ", f"<search> {SECRET} range </search>"],
    [f"<think> The {SECRET} is there. </think> ", f"<answer> {SECRET} land </answer>"],
)
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
ASKED: Any = {"role": "user", "content": QUESTION}
CHAT: Any = {"model": MODEL, "messages": [ASKED]}
TALK: Any = [ASKED, {"role": "assistant", "content": f"In {SECRET} land."}, ASKED]


@dataclass
class Searched:
    """A search server that repeats what it is asked, in what it finds and in its errors."""

    status: int = 200
    is_garbled: bool = False
    num_asked: int = 0

    async def answer(self, request: web.Request) -> web.Response:
        """Answer as set."""
        self.num_asked += 1
        [query] = (await request.json())["queries"]
        said = f"{SECRET}: {query}"
        if self.status != 200:
            return web.json_response({"error": said, "detail": said, "message": said}, status=self.status)
        if self.is_garbled:
            return web.Response(text=said, content_type="application/json")
        return web.json_response({"result": [[{"document": {"id": "1", "contents": said}, "score": 1.0}]]})


@dataclass
class Server:
    """A running server, and what stands behind it."""

    client: httpx.AsyncClient
    engine: FakeVllm
    search: Searched
    log: Path
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def ask(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> httpx.Response:
        """Send a request with an id, a trace and the key of its own."""
        given = {"x-request-id": f"mine-{next(self.numbers)}", "traceparent": TRACEPARENT}
        given |= {"authorization": f"Bearer {KEY}", "accept": "application/json, text/event-stream"} | headers
        content = body if isinstance(body, str | None) else json.dumps(body)
        if content is not None:
            given["content-type"] = "application/json"
        return await self.client.request(method, path, content=content, headers=given)

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.log.read_text("utf-8").splitlines()]


@asynccontextmanager
async def served(folder: Path, **settings: str) -> AsyncIterator[Server]:
    """Run the command, which logs all it can."""
    tokenizer, search = Tokenizer.load(str(CHECKPOINT)), Searched()
    app = web.Application()
    app.router.add_post("/retrieve", search.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with serve_fake_vllm(itertools.cycle(TURNS), encode=tokenizer.encode) as engine:
        engine.max_model_len = 8192
        port, log = free_port(), folder / "log"
        environment = {
            "MODEL": MODEL,
            "TOKENIZER": str(CHECKPOINT),
            "ENGINE_URL": engine.url.replace("//", f"//me:{SECRET}-password@"),
            "RETRIEVER": f"http://me:{SECRET}-password@127.0.0.1:{runner.addresses[0][1]}/retrieve",
            "API_KEYS": KEY,
            "ADMIN_KEY": ADMIN_KEY,
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "debug",
            "ACCESS_LOG": "true",
            "CACHE": "false",
            "DEADLINE_S": "5",
            "SEARCH_ATTEMPTS": "1",
            **settings,
        }
        command = running(
            searchr1("serve", "--port", str(port)),
            port,
            ready="/readyz",
            log=log,
            environment={f"SEARCHR1_{name}": value for name, value in environment.items()},
        )
        server = await asyncio.to_thread(command.__enter__)
        try:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                yield Server(client, engine, search, log)
        finally:
            await asyncio.to_thread(command.__exit__, None, None, None)
            await runner.cleanup()


async def ask_of_each_kind(server: Server) -> None:
    """Send a request to every route that takes content."""
    run = (await server.ask("/v1/research", {"question": QUESTION})).json()
    rest: Any
    for rest in ({"stream": True}, {"store": False}, {"question": [SECRET]}, {SECRET: 1}, {"model": SECRET}):
        await server.ask("/v1/research", {"question": QUESTION, **rest})
    await server.ask(f"/v1/research/{run.get('id')}", method="GET")
    await server.ask(f"/v1/research/{run.get('id')}/events", method="GET")
    await server.ask("/v1/research", method="GET")
    await server.ask(f"/v1/research/{run.get('id')}", method="DELETE")
    for rest in ({"stream": True}, {"n": 2}, {"messages": TALK}, {"messages": SECRET}, {"tools": [{"type": SECRET}]}):
        await server.ask("/v1/chat/completions", {**CHAT, **rest})
    for rest in ({"stream": True}, {"background": True}, {"input": TALK}, {"input": {SECRET: 1}}):
        await server.ask("/v1/responses", {"model": MODEL, "input": QUESTION, **rest})
    for tool, arguments in (("research", {"question": QUESTION}), ("search", {"query": SECRET}), (SECRET, {SECRET: 1})):
        call = {"name": tool, "arguments": arguments}
        await server.ask("/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
    for method, params in ((SECRET, {}), ("tools/call", {"name": [SECRET]}), ("notifications/progress", {SECRET: 1})):
        await server.ask("/mcp", {"jsonrpc": "2.0", "id": 2, "method": method, "params": params})
    await server.ask("/mcp", {"jsonrpc": "2.0", "method": f"notifications/{SECRET}", "params": {SECRET: SECRET}})
    for text in (f'{{"question": "{QUESTION}', f'"{SECRET}"', f'{{"question": "{SECRET}\\ud800"}}', SECRET):
        for path in ("/v1/research", "/v1/chat/completions", "/v1/responses", "/mcp"):
            await server.ask(path, text)
    await server.ask(f"/v1/research?question={SECRET}&api_key={KEY}", {"question": QUESTION}, authorization="Basic x")
    await server.ask("/v1/research", {"question": QUESTION}, authorization=f"Bearer {WRONG_KEY}")
    await server.ask("/admin/reload", {"model": f"/{SECRET}"}, authorization=f"Bearer {WRONG_KEY}")
    with suppress(httpx.ReadTimeout):
        body = {"question": QUESTION, "stream": True}
        async with server.client.stream("POST", "/v1/research", json=body, headers={"authorization": f"Bearer {KEY}"}):
            pass  # It leaves in the middle.


@pytest.mark.timeout(600)
async def test_no_line_holds_what_was_asked_and_each_names_its_request(tmp_path: Path) -> None:
    async with served(tmp_path) as server:
        await ask_of_each_kind(server)
        for fault in (Fault.REFUSE_BROKEN, Fault.REFUSE_REQUEST, Fault.ERROR_IN_STREAM, Fault.GARBAGE, Fault.DROP):
            server.engine.fault = fault
            await server.ask("/v1/research", {"question": QUESTION, "deadline_s": 1.0})
            await server.ask("/v1/chat/completions", {**CHAT, "stream": True, "deadline_s": 1.0})
        server.engine.fault = None
        while (await server.client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 (it has no event)
            await asyncio.sleep(0.1)
        quoted = json.dumps({"error": {"message": f"prompt {server.engine.prompts[-1]} is refused", "code": 400}})
        server.engine.answers["/v1/completions"] = Answer(quoted.encode(), 400)
        refused = await server.ask("/v1/research", {"question": QUESTION, "stream": True})
        assert refused.status_code == 502
        server.engine.answers.clear()
        server.search.is_garbled = True
        for server.search.status in (200, 400, 429, 500, 401):  # After the last one it is not asked any more.
            await server.ask("/v1/research", {"question": QUESTION})
        assert server.search.num_asked > 5
        text, lines = server.log.read_text("utf-8"), server.lines()
        refused_id = refused.headers["x-request-id"]
    assert SECRET not in text.lower()
    ids = ", ".join(map(str, server.engine.prompts[-1][-4:]))
    assert ids not in text
    assert {line["level"] for line in lines} >= {"info", "warning"}
    access = [line for line in lines if line["logger"] == "searchr1.access"]
    assert len(access) > 40
    asked = [line for line in access if line["request_id"].startswith("mine-")]
    assert {line["trace_id"] for line in asked} == {TRACE_ID}
    assert {line["status"] for line in asked} >= {200, 400, 401, 404, 502}
    done = [line for line in asked if line["method"] == "POST" and line["path"] in RUN_PATHS and line["status"] == 200]
    assert len(done) > 10
    assert [line for line in done if not line.get("run_id")] == []
    [told] = [line for line in lines if line.get("request_id") == refused_id and line["level"] == "warning"]
    assert "answered 400: prompt […" in told["message"]
    assert told["run_id"] in told["message"]
    assert told["trace_id"] == TRACE_ID
    of_runs = [line for line in lines if line["logger"] == "searchr1.gateway.runs.drive"]
    assert len(of_runs) > 5
    assert [line for line in of_runs if not (line.get("run_id") and line.get("request_id"))] == []


RUN_PATHS = ("/v1/research", "/v1/chat/completions", "/v1/responses")
