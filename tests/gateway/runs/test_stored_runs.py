"""Stored runs over HTTP: followed, resumed, cancelled, replayed, listed and deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from searchr1.retrieval.base import Found, SearchFailed
from searchr1.retrieval.received import MAX_TITLE_CHARS
from searchr1_client.events import Run
from tests.gateway.conftest import (
    ANSWER_TURN,
    MALI,
    SEARCH_TURN,
    Stage,
    StageEngine,
    StageRetriever,
    eventually,
    running_stage,
    sse_payloads,
)

QUESTION = "Which currency is used in Mali?"


async def ask(stage: Stage, **options: object) -> dict[str, Any]:
    response = await stage.client.post("/v1/research", json={"question": QUESTION, **options})
    assert response.status_code == 200, response.text
    run: dict[str, Any] = response.json()
    assert response.headers["x-run-id"] == run["id"]
    return run


async def get(stage: Stage, run_id: str) -> Run:
    response = await stage.client.get(f"/v1/research/{run_id}")
    assert response.status_code == 200, response.text
    return Run.model_validate_json(response.content)


async def events(stage: Stage, run_id: str, **headers: str) -> list[dict[str, Any]]:
    response = await stage.client.get(f"/v1/research/{run_id}/events", headers=headers)
    assert response.status_code == 200, response.text
    return [json.loads(data) for data in sse_payloads(response.text)]


async def begin(stage: Stage, **options: object) -> tuple[str, httpx.Response]:
    """A streaming run that waits before its last word; close the response."""
    stage.engine.hold = asyncio.Event()
    request = stage.client.build_request("POST", "/v1/research", json={"question": QUESTION, "stream": True, **options})
    response = await stage.client.send(request, stream=True)
    return response.headers["x-run-id"], response


@pytest.fixture
async def held(stage: Stage) -> AsyncIterator[tuple[Stage, str, httpx.Response]]:
    run_id, response = await begin(stage)
    yield stage, run_id, response
    await response.aclose()


async def test_a_stored_run_has_its_trajectory(stage: Stage) -> None:
    told = await ask(stage)
    assert told["trajectory"] is None
    run = await get(stage, told["id"])
    assert run.trajectory is not None
    segments = run.trajectory.segments
    assert [s.kind for s in segments] == ["prompt", "completion", "observation", "completion"]
    assert all(len(s.token_ids) == len(s.loss_mask) for s in segments)
    assert {s.kind: set(s.loss_mask) for s in segments} == {"prompt": {0}, "completion": {1}, "observation": {0}}
    [search] = run.trajectory.searches
    assert search.passages[0].text == MALI.text
    assert search.passages[0].title == MALI.title
    run.trajectory = None
    assert run.model_dump(mode="json") == told


async def test_the_log_repeats_the_stream(stage: Stage) -> None:
    streamed = await stage.client.post("/v1/research", json={"question": QUESTION, "stream": True})
    run_id = streamed.headers["x-run-id"]
    again = await stage.client.get(f"/v1/research/{run_id}/events")
    assert again.text == streamed.text
    seqs = [event["seq"] for event in await events(stage, run_id)]
    assert seqs == list(range(len(seqs)))
    rest = await events(stage, run_id, **{"Last-Event-ID": "3"})
    assert [event["seq"] for event in rest] == seqs[4:]


async def test_a_broken_stream_is_taken_up_where_it_broke(held: tuple[Stage, str, httpx.Response]) -> None:
    stage, run_id, response = held
    await response.aclose()
    assert stage.engine.hold is not None
    resuming = asyncio.create_task(events(stage, run_id, **{"Last-Event-ID": "1"}))
    await asyncio.sleep(0.05)
    stage.engine.hold.set()
    resumed = await resuming
    assert resumed[0]["seq"] == 2
    assert resumed[-1]["type"] == "run.completed"
    assert resumed[-1]["status"] == "completed"


async def test_a_run_that_nobody_reads_any_more_is_cancelled() -> None:
    async with running_stage(resume_grace_s=0.05) as stage:
        run_id, response = await begin(stage)
        await response.aclose()
        await eventually(lambda: stage.engine.num_open == 0)
        assert (await get(stage, run_id)).status == "cancelled"


async def test_a_stream_that_is_not_stored_ends_with_its_reader(stage: Stage) -> None:
    run_id, response = await begin(stage, store=False)
    await response.aclose()
    await eventually(lambda: stage.engine.num_open == 0)
    await eventually(lambda: stage.services.default.seats.num_running == 0)
    assert (await stage.client.get(f"/v1/research/{run_id}")).status_code == 404


async def test_cancel_frees_the_engine_and_ends_every_stream(held: tuple[Stage, str, httpx.Response]) -> None:
    stage, run_id, response = held
    assert (await get(stage, run_id)).status == "running"
    cancelled = await stage.client.post(f"/v1/research/{run_id}/cancel")
    assert cancelled.json()["status"] == "cancelled"
    assert stage.engine.num_open == 0
    last = [line async for line in response.aiter_lines() if line.startswith("data: ")][-1]
    assert json.loads(last[6:])["status"] == "cancelled"
    again = await stage.client.post(f"/v1/research/{run_id}/cancel")
    assert again.json() == cancelled.json()
    assert stage.services.default.seats.num_running == 0


async def test_a_replay_searches_in_the_record_alone(stage: Stage) -> None:
    told = await ask(stage)
    queries = len(stage.retriever.queries)
    replayed = await stage.client.post("/v1/research/replay", json={"run_id": told["id"]})
    assert replayed.status_code == 200, replayed.text
    assert replayed.json()["answer"] == told["answer"]
    assert len(stage.retriever.queries) == queries
    old, new = await get(stage, told["id"]), await get(stage, replayed.json()["id"])
    assert old.trajectory is not None
    assert new.trajectory is not None
    assert new.trajectory.segments == old.trajectory.segments
    whole = json.loads(old.model_dump_json())
    by_value = await stage.client.post("/v1/research/replay", json={"run": whole, "temperature": 0.5})
    assert by_value.json()["answer"] == told["answer"]
    assert stage.engine.params[-1].temperature == 0.5


@pytest.mark.parametrize(
    "forged",
    [{"text": "word " * 10_000}, {"text": "&#38;" * 10_000}, {"text": "豈" * 10_000}, {"title": "t" * 50_000}],
    ids=["words", "entities", "rare letters", "title"],
)
async def test_passages_of_a_replay_have_the_bounds_of_searched_ones(forged: dict[str, str]) -> None:
    """A client may have written the record itself: what is long costs no more than what a search finds."""
    async with running_stage(passage_chars=500, max_top_k=3) as stage:
        run = json.loads((await get(stage, (await ask(stage))["id"])).model_dump_json())
        [search] = run["trajectory"]["searches"]
        search["passages"] = [{**search["passages"][0], **forged} for _ in range(7)]
        replayed = await stage.client.post("/v1/research/replay", json={"run": run})
        assert replayed.status_code == 200, replayed.text
        found = await get(stage, replayed.json()["id"])
    assert found.trajectory is not None
    passages = found.trajectory.searches[0].passages
    assert len(passages) == 3
    assert max(len(passage.text) for passage in passages) <= 500
    assert max(len(passage.title) for passage in passages) <= MAX_TITLE_CHARS


@pytest.mark.parametrize(("on_miss", "searched"), [("fail", 0), ("search", 1)])
async def test_a_query_that_the_record_lacks(on_miss: str, searched: int) -> None:
    engine = StageEngine(completions=[SEARCH_TURN, ANSWER_TURN])
    async with running_stage(engine=engine) as stage:
        told = await ask(stage)
        engine.completions = [SEARCH_TURN.replace("Mali", "Chad"), ANSWER_TURN]
        stage.retriever.queries.clear()
        replayed = await stage.client.post("/v1/research/replay", json={"run_id": told["id"], "on_miss": on_miss})
        assert len(stage.retriever.queries) == searched
        error = replayed.json()["steps"][0]["search_error"]
        assert (error is None) == (on_miss == "search")


async def test_a_failed_search_is_replayed_as_failed() -> None:
    retriever = StageRetriever(SearchFailed("timeout", "too slow"))
    async with running_stage(retriever=retriever) as stage:
        told = await ask(stage)
        retriever.outcome = Found((MALI,))
        replayed = await stage.client.post("/v1/research/replay", json={"run_id": told["id"]})
        assert replayed.json()["steps"][0]["search_error"]["code"] == "unavailable"


async def test_a_forged_record_says_nothing_in_the_log_and_names_no_provider(caplog: pytest.LogCaptureFixture) -> None:
    async with running_stage(retriever=StageRetriever(SearchFailed("timeout", "too slow"))) as stage:
        run = json.loads((await get(stage, (await ask(stage))["id"])).model_dump_json())
        [search] = run["trajectory"]["searches"]
        search["provider"], search["error"] = "forged\n", {"code": "timeout", "message": "forged"}
        replayed = await stage.client.post("/v1/research/replay", json={"run": run})
        assert replayed.status_code == 200, replayed.text
        found = await get(stage, replayed.json()["id"])
    assert found.trajectory is not None
    assert (found.trajectory.searches[0].provider, found.trajectory.searches[0].error is None) == ("", False)
    assert "search failed: unavailable" in caplog.text
    assert "forged" not in caplog.text


@pytest.mark.parametrize(
    "body", [{}, {"run_id": "run_x", "run": {}}, {"run_id": "run_none"}, {"run": {"id": "x"}}, {"run_id": 1}]
)
async def test_a_replay_of_nothing_is_refused(stage: Stage, body: dict[str, object]) -> None:
    response = await stage.client.post("/v1/research/replay", json=body)
    assert response.status_code in (400, 404)
    assert response.json()["error"]["message"]


async def test_a_follow_up_is_asked_after_what_came_before(stage: Stage) -> None:
    first = await ask(stage)
    second = (
        await stage.client.post("/v1/research", json={"question": "And Chad?", "previous_run_id": first["id"]})
    ).json()
    assert second["question"] == "And Chad?"
    stored = await get(stage, second["id"])
    assert stored.trajectory is not None
    prompt = stored.trajectory.segments[0].text
    assert prompt.index(QUESTION) < prompt.index(first["answer"]) < prompt.index("And Chad?")
    third = (
        await stage.client.post("/v1/research", json={"question": "And Niger?", "previous_run_id": second["id"]})
    ).json()
    stored = await get(stage, third["id"])
    assert stored.trajectory is not None
    assert all(text in stored.trajectory.segments[0].text for text in (QUESTION, "And Chad?", "And Niger?"))


async def test_logprobs_are_recorded_when_asked_for(stage: Stage) -> None:
    run = await get(stage, (await ask(stage, logprobs=True))["id"])
    assert stage.engine.params[0].logprobs
    assert run.trajectory is not None
    completions = [s for s in run.trajectory.segments if s.kind == "completion"]
    assert all(s.logprobs is not None and len(s.logprobs) == len(s.sampled_ids) for s in completions)


async def test_runs_are_listed_newest_first_page_by_page(stage: Stage) -> None:
    ids = [(await ask(stage))["id"] for _ in range(3)]
    first = (await stage.client.get("/v1/research", params={"limit": 2})).json()
    assert [run["id"] for run in first["data"]] == [ids[2], ids[1]]
    assert first["has_more"] is True
    rest = (await stage.client.get("/v1/research", params={"limit": 2, "after": first["last_id"]})).json()
    assert [run["id"] for run in rest["data"]] == [ids[0]]
    assert rest["has_more"] is False
    assert rest["data"][0]["answer"] == "West African CFA franc"


async def test_a_deleted_run_is_gone(held: tuple[Stage, str, httpx.Response]) -> None:
    stage, run_id, _ = held
    deleted = await stage.client.delete(f"/v1/research/{run_id}")
    assert deleted.json() == {"id": run_id, "object": "research.run.deleted", "deleted": True}
    assert stage.engine.num_open == 0
    for response in (
        await stage.client.get(f"/v1/research/{run_id}"),
        await stage.client.get(f"/v1/research/{run_id}/events"),
        await stage.client.post(f"/v1/research/{run_id}/cancel"),
        await stage.client.delete(f"/v1/research/{run_id}"),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "run_not_found"


async def test_a_run_is_found_by_its_own_tenant_alone() -> None:
    async with running_stage(tenant_keys={"acme": ("a1", "a2"), "other": ("b1",)}) as stage:
        keys = {name: {"Authorization": f"Bearer {name}"} for name in ("a1", "a2", "b1")}
        told = await stage.client.post("/v1/research", json={"question": QUESTION}, headers=keys["a1"])
        path = f"/v1/research/{told.json()['id']}"
        assert (await stage.client.get(path, headers=keys["a2"])).status_code == 200
        assert (await stage.client.get(path, headers=keys["b1"])).status_code == 404
        assert (await stage.client.delete(path, headers=keys["b1"])).status_code == 404
        assert (await stage.client.get("/v1/research", headers=keys["b1"])).json()["data"] == []


@pytest.mark.parametrize("position", ["x", "-1", "1.5", "9" * 30, ""])
async def test_a_position_that_is_none_is_refused(stage: Stage, position: str) -> None:
    run_id = (await ask(stage))["id"]
    response = await stage.client.get(f"/v1/research/{run_id}/events", headers={"Last-Event-ID": position})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "Last-Event-ID"


async def test_a_bug_ends_a_run_as_failed_and_frees_its_slot() -> None:
    class Broken(StageRetriever):
        async def search(self, query: str, k: int, deadline_s: float) -> Found:
            raise RuntimeError("a bug")

    async with running_stage(retriever=Broken()) as stage:
        streamed = await stage.client.post("/v1/research", json={"question": QUESTION, "stream": True})
        last = json.loads(sse_payloads(streamed.text)[-1])
        assert last["type"] == "run.failed"
        assert last["error"]["code"] == "internal"
        assert "a bug" not in streamed.text
        assert stage.services.default.seats.num_running == 0


async def test_priced_searches_and_the_first_token_are_in_the_usage() -> None:
    engine = StageEngine(completions=[SEARCH_TURN, "<think> " + "well " * 60 + ANSWER_TURN.removeprefix("<think>")])
    retriever = StageRetriever(Found((MALI,), provider="tavily"))
    async with running_stage(engine=engine, retriever=retriever, search_costs_usd={"tavily": 0.008}) as stage:
        usage = (await ask(stage))["usage"]
        assert usage["cost_usd"] == 0.008
        assert usage["first_token_ms"] is not None
        assert usage["completion_tokens"] - usage["reasoning_tokens"] == len("West African CFA franc")
