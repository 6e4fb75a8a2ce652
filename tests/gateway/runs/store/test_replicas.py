"""Two gateways with one Redis: whatever one of them runs, the other can follow, resume and cancel."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.redis_client import open_redis
from searchr1_client.events import Run, RunStarted
from tests.gateway.conftest import Stage, StageEngine, eventually, running_stage, sse_payloads
from tests.support.redis_server import RedisServer, run_redis

pytestmark = pytest.mark.redis
QUESTION = {"question": "Which currency is used in Mali?"}


async def run_on(stage: Stage, run_id: str) -> Run:
    response = await stage.client.get(f"/v1/research/{run_id}")
    assert response.status_code == 200, response.text
    return Run.model_validate_json(response.content)


async def begin(stage: Stage) -> str:
    """Start a run that waits before its last word, and leave it to its grace."""
    stage.engine.hold = asyncio.Event()
    async with stage.client.stream("POST", "/v1/research", json={**QUESTION, "stream": True}) as response:
        return response.headers["x-run-id"]


async def test_a_run_that_has_ended_is_the_same_everywhere(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    streamed = await one.client.post("/v1/research", json={**QUESTION, "stream": True})
    run_id = streamed.headers["x-run-id"]
    followed = await other.client.get(f"/v1/research/{run_id}/events")
    assert followed.text == streamed.text
    while (await run_on(other, run_id)).trajectory is None:  # noqa: ASYNC110 (the record comes after the events)
        await asyncio.sleep(0.05)
    assert await run_on(other, run_id) == await run_on(one, run_id)
    listed = (await other.client.get("/v1/research")).json()["data"]
    assert run_id in [run["id"] for run in listed]
    replayed = await other.client.post("/v1/research/replay", json={"run_id": run_id})
    assert replayed.json()["answer"] == "West African CFA franc"
    assert other.retriever.queries == []


async def test_a_run_goes_on_as_long_as_it_is_read_on_the_other_replica(redis: RedisServer) -> None:
    async with running_stage(redis_url=redis.url, resume_grace_s=4) as one, running_stage(redis_url=redis.url) as other:
        one.engine.hold = asyncio.Event()
        async with AsyncExitStack() as asking:
            stream = one.client.stream("POST", "/v1/research", json={**QUESTION, "stream": True})
            asked = await asking.enter_async_context(stream)
            path = f"/v1/research/{asked.headers['x-run-id']}"
            while (await other.client.get(path)).status_code != 200:  # noqa: ASYNC110 (another process's work)
                await asyncio.sleep(0.02)
            async with other.client.stream("GET", f"{path}/events", headers={"Last-Event-ID": "1"}) as resumed:
                assert resumed.status_code == 200
                await asking.aclose()  # Not before it is read elsewhere: a busy machine may take its time for that.
                resuming = asyncio.create_task(resumed.aread())
                await asyncio.sleep(5)  # Longer than the grace.
                assert not resuming.done()
                one.engine.hold.set()
                body = await resuming
    events = [json.loads(data) for data in sse_payloads(body.decode())]
    assert [event["seq"] for event in events] == list(range(2, 2 + len(events)))
    assert events[-1]["status"] == "completed"


async def test_cancel_reaches_the_replica_that_runs_it(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    run_id = await begin(one)
    for _ in range(100):
        response = await other.client.post(f"/v1/research/{run_id}/cancel")
        if response.status_code == 200:
            break
        await asyncio.sleep(0.05)
    assert response.json()["status"] == "cancelled"
    assert one.engine.num_open == 0
    assert (await run_on(one, run_id)).status == "cancelled"


async def test_a_run_whose_replica_is_gone_has_failed(redis: RedisServer, pair: tuple[Stage, Stage]) -> None:
    store = RedisRunStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    gone = RunMeta("run_lost", "research", 1, "m", "Where?", "k:", replica="killed")
    started = RunStarted(seq=0, run_id=gone.id, turn=0, t_ms=0.0, model="m", question="Where?")
    await store.create(gone)
    await store.append(gone, [LoggedEvent(0, started.model_dump_json().encode())])
    await store.aclose()
    response = await pair[0].client.get(f"/v1/research/{gone.id}/events")
    first, last = [json.loads(data) for data in sse_payloads(response.text)]
    assert first["type"] == "run.started"
    assert (last["type"], last["seq"], last["error"]["code"]) == ("run.failed", 1, "run_lost")
    run = await run_on(pair[1], gone.id)
    assert run.status == "failed"
    assert (await pair[1].client.post(f"/v1/research/{gone.id}/cancel")).json()["status"] == "failed"


async def test_redis_is_killed_and_comes_back_and_no_run_fails() -> None:
    with run_redis() as server:
        async with running_stage(engine=StageEngine(), redis_url=server.url) as stage:
            run_id = await begin(stage)
            await asyncio.to_thread(server.kill)
            assert stage.engine.hold is not None
            stage.engine.hold.set()
            whole = await stage.client.post("/v1/research", json=QUESTION)
            assert whole.json()["answer"] == "West African CFA franc"
            gone = await stage.client.get("/v1/research/run_unknown")
            assert gone.status_code == 503
            assert gone.json()["error"]["code"] == "store_unavailable"
            assert "Retry-After" in gone.headers
            await asyncio.to_thread(server.start)
            await eventually(lambda: stage.services.default.seats.num_running == 0)
            for _ in range(100):
                response = await stage.client.get(f"/v1/research/{run_id}")
                if response.status_code == 200 and response.json()["status"] != "running":
                    break
                await asyncio.sleep(0.1)
            assert response.json()["trajectory"] is not None
