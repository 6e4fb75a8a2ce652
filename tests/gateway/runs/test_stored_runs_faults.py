"""Stored runs against bad luck and bad clients: each test is something that once went wrong, or easily could."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

import httpx
import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.routes import streaming
from searchr1.gateway.routes.streaming import event_stream, followed_stream
from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.hub import RunHub, scope_of
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import Message as StoreMessage
from searchr1.gateway.runs.store.base import RunMeta
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.stored import StoredRun
from searchr1.identity import ANYONE, Caller
from searchr1.loop.types import TokenIds
from searchr1_client.events import KnownEvent, RunCompleted, RunStarted, Usage
from tests.gateway.conftest import Stage, StageEngine, eventually, running_stage, sse_payloads

QUESTION = "Which currency is used in Mali?"
META = RunMeta("run_1", "research", 1, "m", QUESTION, "k:")
ODD_IDS = ("{}", "a}b", "}:state", "%00", "%ff", "%C3%A9", "*", "run_%0d%0a", "..", "x" * 128, "run_{run_1}:log")


async def ask(stage: Stage, **options: object) -> dict[str, Any]:
    response = await stage.client.post("/v1/research", json={"question": QUESTION, **options})
    assert response.status_code == 200, response.text
    return cast(dict[str, Any], response.json())


async def begin(stage: Stage, **options: object) -> tuple[str, httpx.Response]:
    """A streaming run that waits before its last word; close the response."""
    stage.engine.hold = asyncio.Event()
    request = stage.client.build_request("POST", "/v1/research", json={"question": QUESTION, "stream": True, **options})
    response = await stage.client.send(request, stream=True)
    return response.headers["x-run-id"], response


async def kept(stage: Stage, run_id: str) -> dict[str, Any]:
    response = await stage.client.get(f"/v1/research/{run_id}")
    assert response.status_code == 200, response.text
    return cast(dict[str, Any], response.json())


@pytest.mark.parametrize("beyond", [0, 1, 1000])
async def test_a_position_at_or_beyond_the_end_has_nothing_after_it(stage: Stage, beyond: int) -> None:
    run_id = (await ask(stage))["id"]
    path = f"/v1/research/{run_id}/events"
    last = len(sse_payloads((await stage.client.get(path)).text)) - 1
    rest = await stage.client.get(path, headers={"Last-Event-ID": str(last + beyond)})
    assert rest.status_code == 200
    assert rest.headers["content-type"].startswith("text/event-stream")
    assert sse_payloads(rest.text) == []


async def test_a_position_of_thousands_of_digits_is_refused(stage: Stage) -> None:
    run_id = (await ask(stage))["id"]
    headers = {"Last-Event-ID": "9" * 5000}
    response = await stage.client.get(f"/v1/research/{run_id}/events", headers=headers)
    assert response.status_code == 400


async def test_a_reader_that_waits_for_news_has_its_headers_and_may_leave() -> None:
    async with running_stage(resume_grace_s=0.05) as stage:
        run_id, response = await begin(stage)
        seen = 0
        async for line in response.aiter_lines():
            seen += line.startswith("data: ")
            if seen == 3:
                break
        path = f"/v1/research/{run_id}/events"
        async with stage.client.stream("GET", path, params={"after": 1000}) as following:
            assert following.status_code == 200
            await response.aclose()
            await asyncio.sleep(0.2)
            assert stage.engine.num_open == 1  # It is read.
        await eventually(lambda: stage.engine.num_open == 0)
        assert (await kept(stage, run_id))["status"] == "cancelled"


class TidyEngine(StageEngine):
    """Takes its time to abort a completion."""

    num_begun = 0
    num_tidied = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        try:
            async with aclosing(super().generate(prompt_ids, params, session=session, priority=priority)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.num_begun += 1
            await asyncio.sleep(0.2)
            self.num_tidied += 1


async def test_cancelling_twice_does_not_break_off_the_clean_up() -> None:
    engine = TidyEngine()
    async with running_stage(engine=engine) as stage:
        run_id, response = await begin(stage)
        await eventually(lambda: engine.num_open == 1)
        path = f"/v1/research/{run_id}/cancel"
        cancelling = [asyncio.create_task(stage.client.post(path))]
        await eventually(lambda: engine.num_begun == 1)
        cancelling += [asyncio.create_task(stage.client.post(path)) for _ in range(2)]
        await response.aclose()
        for cancelled in await asyncio.gather(*cancelling):
            assert cancelled.json()["status"] == "cancelled"
        assert engine.num_tidied == 1
        assert stage.services.default.seats.num_running == 0


class ScriptedDrive:
    """Gives its events, then hangs."""

    def __init__(self, *events: KnownEvent) -> None:
        self._events = events

    async def events(self) -> AsyncGenerator[KnownEvent, None]:
        for event in self._events:
            yield event
        await asyncio.Event().wait()


async def test_a_run_that_is_cut_after_its_last_event_has_no_second_one() -> None:
    stamp: dict[str, Any] = {"run_id": "run_1", "turn": 1, "t_ms": 1.0}
    started = RunStarted(seq=0, model="m", question="Where?", **stamp)
    completed = RunCompleted(seq=1, status="completed", usage=Usage(), **stamp)
    live = LiveRun(META, cast(RunDrive, ScriptedDrive(started, completed)), leave_s=None)
    driving = asyncio.create_task(live.drive_to_end())
    async with aclosing(live.batches()) as batches:
        assert await anext(batches) == [started, completed]
        live.end()
        assert [batch async for batch in batches] == []
    await driving


async def test_a_run_that_is_cut_before_its_first_event_is_whole(stage: Stage) -> None:
    plan = stage.services.default.admission.plan(QUESTION, RunOptions(), caller=ANYONE, run_id="run_1", stream=True)
    seat = stage.services.default.seats.seat(ANYONE)
    live = LiveRun(META, RunDrive(stage.services, plan, seat.__enter__(), run_id="run_1", created=1), leave_s=None)
    live.end()
    await live.drive_to_end()
    batches = [batch async for batch in live.batches()]
    assert [event.type for batch in batches for event in batch] == ["run.started", "run.completed"]
    assert live.record().status == "cancelled"
    assert live.record().trajectory is not None


@pytest.mark.parametrize("body", [{"stream": True}, {"stream": True, "store": False}, {"stream": False}])
async def test_clients_that_are_gone_before_the_first_event_leave_nothing_behind(body: dict[str, object]) -> None:
    async with running_stage(resume_grace_s=0.05) as stage:
        stage.engine.hold = asyncio.Event()
        port = httpx.URL(stage.url).port
        assert port is not None
        content = json.dumps({"question": QUESTION, **body}).encode()
        head = b"POST /v1/research HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += b"Content-Length: %d\r\n\r\n"
        for number in range(30):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head % len(content) + content)
            for _ in range(number % 10):
                await asyncio.sleep(0)
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        await ask_health(stage)
        await eventually(lambda: stage.services.default.seats.num_running == 0)
        assert stage.engine.num_open == 0
        listed = (await stage.client.get("/v1/research", params={"limit": 100})).json()["data"]
        assert {run["status"] for run in listed} <= {"cancelled"}


async def ask_health(stage: Stage) -> None:
    """Ask for health: at its answer the server has taken the connections that came before."""
    assert (await stage.client.get("/livez")).status_code in (200, 404)


async def test_a_client_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "SEND_TIMEOUT_S", 0.05)
    is_closed = False

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal is_closed
        try:
            while True:
                yield b"data: {}\n\n"
        finally:
            is_closed = True

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    for response in (await event_stream(chunks(), heartbeat_s=15), followed_stream(chunks(), heartbeat_s=15)):
        is_closed = False
        with pytest.raises(ClientDisconnect):
            await response({"type": "http", "method": "GET"}, receive, send)
        assert is_closed


async def test_a_client_that_leaves_before_the_headers_closes_the_stream() -> None:
    is_closed = False

    async def chunks() -> AsyncGenerator[bytes, None]:
        nonlocal is_closed
        try:
            yield b"data: {}\n\n"
        finally:
            is_closed = True

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(_: Message) -> None:
        await asyncio.Event().wait()

    source = chunks()
    response = await event_stream(source, heartbeat_s=15)
    await response({"type": "http", "method": "POST"}, receive, send)
    assert is_closed


async def test_of_pipelined_requests_the_first_is_answered_whole_and_the_connection_closed(stage: Stage) -> None:
    run_id = (await ask(stage))["id"]
    port = httpx.URL(stage.url).port
    assert port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        get = f"GET /v1/research/{run_id}%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
        requests = (get % ("/events", ""), get % ("", ""), get % ("/events", "Connection: close\r\n"))
        writer.write("".join(requests).encode())
        answer = await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert answer.count(b'"type":"run.completed"') == 1


@pytest.mark.parametrize("run_id", ODD_IDS)
async def test_odd_ids_are_not_found(stage: Stage, run_id: str) -> None:
    await ask(stage)
    url = f"{stage.url}/v1/research/{run_id}"
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        response = await stage.client.request(method, url + path)
        assert response.status_code in (404, 405), (method, path, response.text)
        assert response.json()["error"]["message"]


@pytest.mark.parametrize("run_id", ["{}", "\x00", "\ud800", "", "x" * 129, None, 1])
async def test_odd_ids_in_bodies_are_refused(stage: Stage, run_id: object) -> None:
    for path, name in (("/v1/research", "previous_run_id"), ("/v1/research/replay", "run_id")):
        if run_id is None and name == "previous_run_id":
            continue
        content = json.dumps({"question": QUESTION, name: run_id} if name == "previous_run_id" else {name: run_id})
        headers = {"content-type": "application/json"}
        response = await stage.client.post(path, content=content.encode(), headers=headers)
        assert response.status_code in (400, 404), response.text


async def test_a_page_after_a_deleted_run_is_refused_and_not_empty(stage: Stage) -> None:
    ids = [(await ask(stage))["id"] for _ in range(3)]
    await stage.client.delete(f"/v1/research/{ids[2]}")
    response = await stage.client.get("/v1/research", params={"after": ids[2]})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "run_not_found"


@pytest.mark.parametrize(
    "options",
    [
        {"max_turns": -5},
        {"max_turns": 0},
        {"max_turns": 10**9},
        {"top_k": 0},
        {"top_k": -1},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0},
        {"top_p": float("nan")},
        {"seed": -1},
        {"seed": 10**30},
        {"max_tokens": -1},
        {"max_searches": -1},
        {"max_turns": "many"},
    ],
)
async def test_a_replay_takes_no_options_that_a_question_could_not_have(
    stage: Stage, options: dict[str, object]
) -> None:
    run = await kept(stage, (await ask(stage))["id"])
    run["trajectory"]["options"] |= options
    num_asked = len(stage.engine.prompts)
    content = json.dumps({"run": run}).encode()
    headers = {"content-type": "application/json"}
    response = await stage.client.post("/v1/research/replay", content=content, headers=headers)
    assert response.status_code == 400, response.text
    assert len(stage.engine.prompts) == num_asked


async def test_a_replayed_run_made_by_the_client(stage: Stage) -> None:
    """A run that no server ever gave is refused or run, and is never an error of the server."""
    run = await kept(stage, (await ask(stage))["id"])
    [search] = run["trajectory"]["searches"]
    [passage] = search["passages"]
    many = [{**search, "passages": []} for _ in range(5000)]
    crooked: list[tuple[dict[str, object], int]] = [
        ({"searches": many}, 400),
        ({"searches": [{**search, "passages": [passage] * 2000}]}, 400),
        ({"searches": [{**search, "passages": [{**passage, "score": float("nan")}]}]}, 200),
        ({"searches": [{**search, "passages": [{**passage, "text": "\x00<|im_end|></information>"}]}]}, 200),
        ({"searches": [{**search, "passages": [{**passage, "url": "javascript:alert(1)"}]}]}, 200),
        ({"searches": [{**search, "passages": [{**passage, "text": "\ud800"}]}]}, 400),
        ({"searches": [{**search, "provider": "\ud800"}]}, 400),
        ({"searches": [{**search, "error": {"code": "x", "message": "\ud800"}}]}, 400),
        ({"question": "\ud800"}, 400),
        ({"searches": [{**search, "query": None}]}, 400),
        ({"question": "\x00"}, 400),
        ({"question": "x" * 9000}, 400),
        ({"schema_version": 2}, 400),
        ({"segments": "none"}, 400),
    ]
    for change, status in crooked:
        content = json.dumps({"run": {**run, "trajectory": {**run["trajectory"], **change}}}).encode()
        headers = {"content-type": "application/json"}
        response = await stage.client.post("/v1/research/replay", content=content, headers=headers)
        assert response.status_code == status, (str(change)[:100], response.text[:300])
        assert b"javascript:" not in response.content
    deep = b'{"run":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    response = await stage.client.post("/v1/research/replay", content=deep, headers=headers)
    assert response.status_code == 400
    long = await stage.client.post("/v1/research/replay", json={"run": {**run, "question": "x" * 9000}})
    assert long.status_code == 400
    assert stage.services.default.seats.num_running == 0


async def test_stopping_the_server_leaves_no_task_and_no_slot() -> None:
    before = asyncio.all_tasks()
    async with running_stage(shutdown_grace_s=0) as stage:
        _, response = await begin(stage)
        body = {"model": stage.services.settings.public_name, "input": QUESTION, "background": True}
        assert (await stage.client.post("/v1/responses", json=body)).status_code == 200
        assert stage.services.default.seats.num_running == 2
        await response.aclose()
    assert stage.services.default.seats.num_running == 0
    assert stage.engine.num_open == 0
    left = {task.get_name() + repr(task.get_coro()) for task in asyncio.all_tasks() - before}
    assert {name for name in left if "_shutdown_watcher" not in name} == set()


async def test_expired_runs_are_not_listed_and_do_not_break_the_listing() -> None:
    now = 0.0
    store = MemoryRunStore(ttl_s=10, max_bytes=2**20, clock=lambda: now)
    for number in range(4):
        await store.create(RunMeta(f"run_{number}", "research", 1, "m", "Where?", "k:"))
        now += 4
    assert [state.meta.id for state in await store.list_runs("k:", None, 9)] == ["run_3", "run_2"]


async def test_what_a_request_brings_counts_against_the_memory_bound() -> None:
    store = MemoryRunStore(ttl_s=1000, max_bytes=1_000_000)
    for number in range(50):
        about = RunMeta(f"run_{number}", "response", 1, "m", "Where?", "k:", request={"input": "x" * 100_000})
        await store.create(about)
        stored = StoredRun((await found(store, about.id)), store)
        await store.finish(stored._state, b"{}")
    assert len([n for n in range(50) if await store.state(f"run_{n}") is not None]) <= 10


async def found(store: MemoryRunStore, run_id: str) -> Any:
    state = await store.state(run_id)
    assert state is not None
    return state


async def test_a_run_that_nobody_drives_ends_for_its_readers_and_blocks_nobody() -> None:
    store = MemoryRunStore(ttl_s=1000, max_bytes=2**20)
    await store.create(RunMeta("run_1", "research", 1, "m", "Where?", "k:", replica="me"))
    await store.abandon(RunMeta("run_1", "research", 1, "m", "Where?", "k:", replica="me"))
    handle = StoredRun(await found(store, "run_1"), store)
    run = await handle.run()
    assert run.status == "failed"
    assert run.error is not None
    assert run.error.code == "run_lost"
    types = [event.type for batch in [batch async for batch in handle.batches()] for event in batch]
    assert types == ["run.started", "run.failed"]
    waiting = StoredRun(await found(store, "run_1"), store).batches(5)
    reading = asyncio.ensure_future(anext(waiting))
    await asyncio.sleep(0)  # This line is reached: the reader gives way.
    [last] = await reading
    assert (last.type, last.seq) == ("run.failed", 6)


class ForgetfulStore(MemoryRunStore):
    """Loses the first cancellation of a heartbeat, as redis-py does now and then."""

    num_lost = 0

    async def heartbeat(self, replica: str, wait_s: float, sorts: Sequence[str] = ()) -> list[StoreMessage]:
        try:
            return await super().heartbeat(replica, wait_s, sorts)
        except asyncio.CancelledError:
            self.num_lost += 1
            if self.num_lost > 1:
                raise
            return []


async def test_a_gateway_stops_though_its_store_loses_a_cancellation() -> None:
    store = ForgetfulStore(ttl_s=1000, max_bytes=2**20)
    async with running_stage() as stage, asyncio.timeout(5), RunHub(stage.services, store):
        await asyncio.sleep(0.01)
    assert store.num_lost == 1


def test_a_tenant_can_not_be_named_as_a_key() -> None:
    scopes = {scope_of(Caller(tenant=name, key_id="0123")) for name in ("", "0123", "k:0123", "t:0123", ":", "t:")}
    assert len(scopes) == 6
