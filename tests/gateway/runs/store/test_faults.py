"""Stored runs while their Redis is full, flushed, read-only, refusing or silent; and with more readers than it has
connections."""

import asyncio
import json
import signal
from collections.abc import Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, cast

import pytest

from searchr1.gateway.runs import mirror
from searchr1.gateway.runs.store.base import LoggedEvent, RunForgottenError, RunMeta, RunState
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.gateway.runs.stored import StoredRun
from searchr1.redis_client import open_redis
from searchr1_client.events import RunStarted
from tests.gateway.conftest import ANSWER_TURN, Stage, StageEngine, eventually, running_stage, sse_payloads
from tests.support.redis_server import RedisServer, free_redis_port, run_redis

pytestmark = pytest.mark.redis
QUESTION = {"question": "Which currency is used in Mali?"}


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> Iterator[RedisServer]:
    order(shared_redis, "FLUSHALL")
    order(shared_redis, "CONFIG SET", "maxmemory-policy", "noeviction")
    yield shared_redis
    order(shared_redis, "CONFIG SET", "maxmemory", "0")


def order(server: RedisServer, *command: str) -> Any:
    """Have Redis do something, whatever state it is in."""
    with server.client() as client:
        return cast(Any, client).execute_command(*command)


async def begin(stage: Stage) -> str:
    """A background run that waits before its last word."""
    stage.engine.hold = asyncio.Event()
    async with stage.client.stream("POST", "/v1/research", json={**QUESTION, "stream": True}) as response:
        return response.headers["x-run-id"]


def release(stage: Stage) -> None:
    assert stage.engine.hold is not None
    stage.engine.hold.set()


async def follow(
    stage: Stage, run_id: str, after: int = -1, *, begun: asyncio.Event | None = None
) -> list[dict[str, Any]]:
    """Read a run's events to their end; ``begun`` is set once the run was found."""
    events = f"/v1/research/{run_id}/events"
    async with asyncio.timeout(45), stage.client.stream("GET", events, params={"after": after}) as response:
        if begun is not None:
            begun.set()
        text = (await response.aread()).decode()
    assert response.status_code == 200, text
    return [json.loads(data) for data in sse_payloads(text)]


def assert_whole(events: list[dict[str, Any]], status: str = "completed") -> None:
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events if event["type"].startswith("run.")] == ["run.started", "run.completed"]
    assert events[-1]["status"] == status


async def test_a_run_is_found_elsewhere_as_soon_as_its_id_is_known(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    await asyncio.sleep(0.05)  # Far less than events wait for being stored.
    assert (await other.client.get(f"/v1/research/{run_id}")).status_code == 200
    release(one)


async def test_more_readers_than_connections(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    await eventually_found(other, run_id)
    readers = [asyncio.create_task(follow(other, run_id)) for _ in range(90)]
    await asyncio.sleep(3)
    assert not any(reader.done() for reader in readers)
    cancelled = await one.client.get(f"/v1/research/{run_id}")
    assert cancelled.json()["status"] == "running"
    own = await begin(other)  # Its notes come through although readers wait for so much else.
    await eventually_found(one, own)
    assert (await one.client.post(f"/v1/research/{own}/cancel")).json()["status"] == "cancelled"
    release(one)
    for events in await asyncio.gather(*readers):
        assert_whole(events)


async def test_a_redis_that_forgets_everything_is_told_again(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    await eventually_found(other, run_id)
    begun = asyncio.Event()
    reading = asyncio.create_task(follow(other, run_id, begun=begun))
    await eventually(lambda: bool(order(redis, "EXISTS", f"sr1:run:{{{run_id}}}:log")))
    await begun.wait()
    await asyncio.to_thread(order, redis, "FLUSHALL")
    await asyncio.sleep(0.1)
    release(one)
    assert_whole(await reading)
    assert_whole(await follow(other, run_id))
    assert (await other.client.get(f"/v1/research/{run_id}")).json()["trajectory"] is not None
    assert_everything_expires(redis)


@pytest.mark.parametrize("num_commands", [1, 2, 3])
async def test_a_redis_that_forgets_while_a_run_is_finished_holds_no_part_of_it(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, num_commands: int
) -> None:
    client, num_sent = open_redis(redis.url), 0
    store = RedisRunStore(client, open_redis(redis.url), ttl_s=60)
    about = RunMeta("run_1", "research", created=0, model="m", question="?", scope="k:1")
    execute = client.execute_command

    async def forgetting(*command: Any, **options: Any) -> Any:
        nonlocal num_sent
        answer = await execute(*command, **options)
        num_sent += 1
        if num_sent == num_commands:
            order(redis, "FLUSHALL")
        return answer

    async with aclosing(store):
        await store.create(about)
        await store.append(about, [LoggedEvent(0, b"{}")])
        with monkeypatch.context() as patch, suppress(RunForgottenError):
            patch.setattr(client, "execute_command", forgetting)
            await store.finish(RunState(about, "completed"), b"{}")
        assert await store.state(about.id) is None or await store.record(about.id) is not None


async def test_a_redis_that_evicts_a_log_is_told_again(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    log = f"sr1:run:{{{run_id}}}:log"
    await eventually(lambda: bool(order(redis, "EXISTS", log)))
    order(redis, "DEL", log)
    release(one)
    await eventually_ended(other, run_id)
    assert_whole(await follow(other, run_id))


async def test_a_full_redis_delays_the_log_and_ends_nothing(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    await eventually_found(other, run_id)
    reading = asyncio.create_task(follow(other, run_id))
    await asyncio.sleep(0.5)
    order(redis, "CONFIG SET", "maxmemory", "1")
    release(one)
    assert (await one.client.post("/v1/research", json={**QUESTION, "store": False})).status_code == 200
    await asyncio.sleep(2)  # Some tries to store the rest fail.
    assert not reading.done()
    order(redis, "CONFIG SET", "maxmemory", "0")
    assert_whole(await reading)
    await eventually_ended(other, run_id)
    assert_everything_expires(redis)


async def test_a_full_redis_keeps_the_lease_of_a_replica(redis: RedisServer) -> None:
    store = RedisRunStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    await store.heartbeat("me", 0.01)
    order(redis, "CONFIG SET", "maxmemory", "1")
    order(redis, "PEXPIRE", "sr1:replica:me", "1000")
    await store.heartbeat("me", 0.01)
    assert order(redis, "PTTL", "sr1:replica:me") > 4_000
    await store.aclose()


async def test_a_run_that_could_not_be_stored_does_not_run_for_ever(
    redis: RedisServer, pair: tuple[Stage, Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "LAST_FLUSHES", 2)
    one, other = pair
    run_id = await begin(one)
    await eventually_found(other, run_id)
    order(redis, "CONFIG SET", "maxmemory", "1")
    release(one)
    for _ in range(200):
        state = (await one.client.get(f"/v1/research/{run_id}")).json()
        if state["status"] == "failed":
            break
        await asyncio.sleep(0.05)
    assert state["error"]["code"] == "run_lost"
    order(redis, "CONFIG SET", "maxmemory", "0")
    ended = await eventually_ended(other, run_id)
    assert ended["error"]["code"] == "run_lost"
    last = (await follow(other, run_id))[-1]
    assert (last["type"], last["error"]["code"]) == ("run.failed", "run_lost")


async def test_a_run_that_is_deleted_elsewhere_stays_deleted(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    await eventually_found(other, run_id)
    assert (await other.client.delete(f"/v1/research/{run_id}")).status_code == 200
    assert one.engine.num_open == 0
    release(one)
    await eventually(lambda: one.services.default.seats.num_running == 0)
    await asyncio.sleep(0.6)  # The owner would have written by now.
    assert order(redis, "KEYS", f"*{run_id}*") == []
    for stage in pair:
        assert (await stage.client.get(f"/v1/research/{run_id}")).status_code == 404
        assert (await stage.client.get("/v1/research")).json()["data"] == []


async def test_a_lost_run_without_any_event_has_failed(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    store = RedisRunStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    await store.create(RunMeta("run_lost", "research", 1, "m", "Where?", "k:", replica="killed"))
    await store.aclose()
    run = await pair[0].client.get("/v1/research/run_lost")
    assert run.status_code == 200
    assert (run.json()["status"], run.json()["question"]) == ("failed", "Where?")
    events = await follow(pair[1], "run_lost")
    assert [(event["seq"], event["type"]) for event in events] == [(0, "run.started"), (1, "run.failed")]


async def test_the_last_events_of_a_lost_run_come_before_its_end(redis: RedisServer) -> None:
    """Its owner stored them and died between a reader's look at the log and its look at the lease."""
    store = RedisRunStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    gone = RunMeta("run_lost", "research", 1, "m", "Where?", "k:", replica="killed")
    started = RunStarted(seq=0, run_id=gone.id, turn=0, t_ms=0.0, model="m", question="Where?")
    await store.create(gone)
    await store.append(gone, [LoggedEvent(0, started.model_dump_json().encode())])

    class Late(RedisRunStore):
        num_reads = 0

        async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
            self.num_reads += 1
            return [] if self.num_reads < 4 else await super().read(run_id, after, wait_s)

    late = Late(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    state = await late.state(gone.id)
    assert state is not None
    batches = [batch async for batch in StoredRun(state, late).batches()]
    assert [event.type for batch in batches for event in batch] == ["run.started", "run.failed"]
    await store.aclose()
    await late.aclose()


@contextmanager
def run_refusing(*options: str) -> Iterator[str]:
    """A Redis that takes no writes: its URL. It starts as any other; the options are set then."""
    with run_redis() as server:
        for option in options:
            name, value = option.split(" ", 1)
            order(server, *(("CONFIG SET", name, value) if name != "replicaof" else ("REPLICAOF", *value.split(" "))))
        yield server.url


@pytest.mark.parametrize(
    "options", [("requirepass secret",), ("replica-read-only yes", f"replicaof 127.0.0.1 {free_redis_port()}")]
)
async def test_a_redis_that_refuses_ends_no_run(options: tuple[str, ...]) -> None:
    with run_refusing(*options) as url:
        async with running_stage(redis_url=url) as stage:
            run = await stage.client.post("/v1/research", json=QUESTION)
            assert run.json()["answer"] == "West African CFA franc"
            streamed = await stage.client.post("/v1/research", json={**QUESTION, "stream": True})
            assert_whole([json.loads(data) for data in sse_payloads(streamed.text)])
            for method, path in (("GET", ""), ("GET", "/run_x"), ("GET", "/run_x/events"), ("DELETE", "/run_x")):
                response = await stage.client.request(method, f"/v1/research{path}")
                assert response.status_code in (200, 404, 503), response.text
                assert "secret" not in response.text
            assert stage.services.default.seats.num_running == 0


@pytest.mark.parametrize("run_id", ["{}", "a}b", "}:state", "%00", "%ff", "run_{x}:log", "sr1:runs:k:", "a b"])
async def test_odd_ids_are_not_found_in_redis(pair: tuple[Stage, Stage], run_id: str) -> None:
    await pair[0].client.post("/v1/research", json=QUESTION)
    assert (await pair[1].client.get(f"{pair[1].url}/v1/research/{run_id}")).status_code == 404
    for odd in ("\ud800", "\x00", run_id):
        content = json.dumps({**QUESTION, "previous_run_id": odd}).encode()
        headers = {"content-type": "application/json"}
        response = await pair[1].client.post("/v1/research", content=content, headers=headers)
        assert response.status_code in (400, 404), response.text


async def test_a_silent_redis_holds_up_no_stream(redis: RedisServer) -> None:
    async with running_stage(redis_url=redis.url, engine=StageEngine(completions=[ANSWER_TURN])) as stage:
        redis.send(signal.SIGSTOP)
        try:
            streams = [stage.client.post("/v1/research", json={**QUESTION, "stream": True}) for _ in range(20)]
            for streamed in await asyncio.gather(*streams):
                assert_whole([json.loads(data) for data in sse_payloads(streamed.text)])
            assert stage.services.default.seats.num_running == 0
        finally:
            redis.send(signal.SIGCONT)
        await eventually_ended(stage, streamed.headers["x-run-id"])
        assert_whole(await follow(stage, streamed.headers["x-run-id"]))


async def eventually_found(stage: Stage, run_id: str) -> None:
    while (await stage.client.get(f"/v1/research/{run_id}")).status_code != 200:  # noqa: ASYNC110 (another process's work)
        await asyncio.sleep(0.02)


async def eventually_ended(stage: Stage, run_id: str) -> dict[str, Any]:
    while True:
        response = await stage.client.get(f"/v1/research/{run_id}")
        if response.status_code == 200 and response.json()["status"] != "running":
            return cast(dict[str, Any], response.json())
        await asyncio.sleep(0.05)


def assert_everything_expires(server: RedisServer) -> None:
    keys = order(server, "KEYS", "*")
    assert {key for key in keys if order(server, "PTTL", key) == -1} == set()
