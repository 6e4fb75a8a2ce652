"""Two gateways with one Redis: whoever was told of a run's end finds it ended at the other gateway, at once."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from searchr1.gateway.runs import live, stored
from searchr1.gateway.runs.store.base import LoggedEvent, RunMeta, RunState
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.store.redis import RedisRunStore
from tests.gateway.conftest import MODEL, Stage, eventually, running_stage, sse_payloads

QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"
LATE_S = 0.3
"""By how much each write to the store is late: without a wait for it, a follow-up comes first."""
FOR_EVER_S = 3600.0
Asked = Callable[[Stage], Awaitable[str]]
"""Asks a gateway, and returns the run's id once its end is told."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have gateways wait for their store for ever: whatever waits where it should not never ends."""
    monkeypatch.setattr(live, "_STORED_WITHIN_S", FOR_EVER_S)
    monkeypatch.setattr(live, "_END_STORED_WITHIN_S", FOR_EVER_S)
    monkeypatch.setattr(stored, "_RECORD_WITHIN_S", FOR_EVER_S)


@pytest.fixture
def late_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    append, finish = RedisRunStore.append, RedisRunStore.finish

    async def append_late(
        store: RedisRunStore, meta: RunMeta, events: Sequence[LoggedEvent], inputs: bytes = b""
    ) -> None:
        await asyncio.sleep(LATE_S)
        await append(store, meta, events, inputs)

    async def finish_late(store: RedisRunStore, state: RunState, record: bytes) -> None:
        await asyncio.sleep(LATE_S)
        await finish(store, state, record)

    monkeypatch.setattr(RedisRunStore, "append", append_late)
    monkeypatch.setattr(RedisRunStore, "finish", finish_late)


async def posted(stage: Stage, path: str, body: dict[str, Any], **headers: str) -> Any:
    answer = await stage.client.post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    if body.get("stream"):
        return [json.loads(data) for data in sse_payloads(answer.text)]
    return answer.json()


async def response_whole(stage: Stage) -> str:
    told = await posted(stage, "/v1/responses", {"model": MODEL, "input": QUESTION})
    return str(told["id"])


async def response_stream(stage: Stage) -> str:
    told = await posted(stage, "/v1/responses", {"model": MODEL, "input": QUESTION, "stream": True})
    assert told[-1]["type"] == "response.completed"
    return str(told[-1]["response"]["id"])


async def response_in_background(stage: Stage) -> str:
    made = await posted(stage, "/v1/responses", {"model": MODEL, "input": QUESTION, "background": True})
    while (await stage.client.get(f"/v1/responses/{made['id']}")).json()["status"] != "completed":  # noqa: ASYNC110
        await asyncio.sleep(0)
    return str(made["id"])


async def run_whole(stage: Stage) -> str:
    return str((await posted(stage, "/v1/research", {"question": QUESTION}))["id"])


async def run_whole_with_key(stage: Stage) -> str:
    told = await posted(stage, "/v1/research", {"question": QUESTION}, **{"Idempotency-Key": f"key-{id(stage)}"})
    return str(told["id"])


async def run_stream(stage: Stage) -> str:
    told = await posted(stage, "/v1/research", {"question": QUESTION, "stream": True})
    assert told[-1]["type"] == "run.completed"
    return str(told[-1]["run_id"])


async def run_polled(stage: Stage) -> str:
    stage.engine.hold = asyncio.Event()
    asking = asyncio.create_task(posted(stage, "/v1/research", {"question": QUESTION, "stream": True}))
    await eventually(lambda: stage.engine.num_open == 1)
    [run_id] = stage.hub._live
    stage.engine.hold.set()
    while (await stage.client.get(f"/v1/research/{run_id}")).json()["status"] == "running":  # noqa: ASYNC110
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return run_id


async def run_cancelled(stage: Stage) -> str:
    stage.engine.hold = asyncio.Event()
    asking = asyncio.create_task(posted(stage, "/v1/research", {"question": QUESTION, "stream": True}))
    await eventually(lambda: stage.engine.num_open == 1)
    [run_id] = stage.hub._live
    assert (await posted(stage, f"/v1/research/{run_id}/cancel", {}))["status"] == "cancelled"
    stage.engine.hold = None
    await asking
    return run_id


RESPONSES = (response_whole, response_stream, response_in_background)
RUNS = (run_whole, run_whole_with_key, run_stream, run_polled, run_cancelled)


@pytest.mark.redis
@pytest.mark.usefixtures("late_writes")
@pytest.mark.parametrize("asked", RESPONSES)
async def test_a_response_is_followed_up_at_once_at_the_other_gateway(pair: tuple[Stage, Stage], asked: Asked) -> None:
    one, other = pair
    response_id = await asked(one)
    body = {"model": MODEL, "input": "And in Chad?", "previous_response_id": response_id}
    for stream in (False, True):
        follow_up = await posted(other, "/v1/responses", {**body, "stream": stream})
        told = follow_up[-1]["response"] if stream else follow_up
        assert told["status"] == "completed"
    assert ANSWER in other.services.default.tokenizer.decode(other.engine.prompts[0])


@pytest.mark.redis
@pytest.mark.usefixtures("late_writes")
@pytest.mark.parametrize("asked", RUNS)
async def test_a_run_is_followed_up_and_replayed_at_once_at_the_other_gateway(
    pair: tuple[Stage, Stage], asked: Asked
) -> None:
    one, other = pair
    run_id = await asked(one)
    found, listed, follow_up, replayed = await asyncio.gather(
        other.client.get(f"/v1/research/{run_id}"),
        other.client.get("/v1/research"),
        other.client.post("/v1/research", json={"question": "And in Chad?", "previous_run_id": run_id}),
        other.client.post("/v1/research/replay", json={"run_id": run_id, "on_miss": "search"}),
    )
    status = "cancelled" if asked is run_cancelled else "completed"
    assert found.json()["status"] == status
    assert found.json()["trajectory"] is not None
    assert {run["id"]: run["status"] for run in listed.json()["data"]}[run_id] == status
    assert (follow_up.status_code, replayed.status_code) == (200, 200), (follow_up.text, replayed.text)


@pytest.mark.redis
@pytest.mark.usefixtures("late_writes")
async def test_who_reads_a_run_elsewhere_to_its_end_finds_its_record(pair: tuple[Stage, Stage]) -> None:
    one, other = pair
    one.engine.hold = asyncio.Event()
    asking = asyncio.create_task(run_stream(one))
    await eventually(lambda: one.engine.num_open == 1)
    [run_id] = one.hub._live
    while (await other.client.get(f"/v1/research/{run_id}")).status_code != 200:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    following = asyncio.create_task(other.client.get(f"/v1/research/{run_id}/events"))
    one.engine.hold.set()
    assert json.loads(sse_payloads((await following).text)[-1])["type"] == "run.completed"
    assert (await other.client.get(f"/v1/research/{run_id}")).json()["trajectory"] is not None
    assert await asking == run_id


@pytest.mark.redis
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/research"])
async def test_a_whole_answer_waits_until_its_run_is_stored(
    pair: tuple[Stage, Stage], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    finish, begun, go = RedisRunStore.finish, asyncio.Event(), asyncio.Event()

    async def held(store: RedisRunStore, state: RunState, record: bytes) -> None:
        begun.set()
        await go.wait()
        await finish(store, state, record)

    monkeypatch.setattr(RedisRunStore, "finish", held)
    body = {"model": MODEL, "input": QUESTION} if path == "/v1/responses" else {"question": QUESTION}
    asking = asyncio.create_task(posted(pair[0], path, body))
    await begun.wait()
    for _ in range(20):  # What would be sent without a wait is sent by now.
        await pair[0].client.get("/healthz")
    assert not asking.done()
    go.set()
    run_id = (await asking)["id"]
    assert (await pair[1].client.get(f"{path}/{run_id}")).json()["status"] == "completed"


class Silent:
    """Every call that writes to a store, which never comes back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *stores: type) -> None:
        async def silent(*_: Any) -> None:
            await asyncio.Event().wait()

        for store in stores:
            for name in ("create", "append", "finish"):
                monkeypatch.setattr(store, name, silent)


@pytest.mark.redis
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_to_be_stored_waits_for_no_store(
    pair: tuple[Stage, Stage], monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    Silent(monkeypatch, RedisRunStore)
    told = await posted(pair[0], "/v1/research", {"question": QUESTION, "store": False, "stream": stream})
    assert (told[-1]["status"] if stream else told["status"]) == "completed"
    told = await posted(pair[0], "/v1/responses", {"model": MODEL, "input": QUESTION, "store": False, "stream": stream})
    assert (told[-1]["response"] if stream else told)["status"] == "completed"
    messages = [{"role": "user", "content": QUESTION}]
    chat = await posted(pair[0], "/v1/chat/completions", {"model": MODEL, "messages": messages})
    assert chat["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_in_memory_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    Silent(monkeypatch, MemoryRunStore)
    # As long as it takes to give up a run that can't be stored, when the gateway stops.
    monkeypatch.setattr("searchr1.gateway.runs.hub.LAST_FLUSHES", 1)
    async with running_stage() as stage:
        told = await posted(stage, "/v1/research", {"question": QUESTION, "stream": stream})
        assert (told[-1]["status"] if stream else told["status"]) == "completed"
        told = await posted(stage, "/v1/responses", {"model": MODEL, "input": QUESTION, "stream": stream})
        assert (told[-1]["response"] if stream else told)["status"] == "completed"
