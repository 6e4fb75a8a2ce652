"""The native route: events, the folded run, cancellation, limits."""

import asyncio
import json

import httpx
import pytest

from searchr1.errors import EngineOverloadedError, EngineUnavailableError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from searchr1_client.events import parse_event
from searchr1_client.fold import RunFold

from .conftest import (
    ANSWER_TURN,
    SEARCH_TURN,
    Stage,
    StageEngine,
    StageRetriever,
    eventually,
    running_stage,
    sse_payloads,
)

QUESTION = {"question": "Which currency is used in Mali?"}


async def test_events_arrive_in_order_and_add_up_to_the_run(stage: Stage) -> None:
    streamed = await stage.client.post("/v1/research", json={**QUESTION, "stream": True})
    assert streamed.headers["content-type"].startswith("text/event-stream")
    events = [parse_event(data) for data in sse_payloads(streamed.text)]
    kinds = [e.type for e in events]
    assert [k for k in kinds if not k.endswith(".delta")] == [
        "run.started",
        "search.started",
        "search.completed",
        "answer.completed",
        "run.completed",
    ]
    assert [json.loads(d)["seq"] for d in sse_payloads(streamed.text)] == list(range(len(events)))
    fold = RunFold()
    for event in events:
        fold.add(event)
    whole = (await stage.client.post("/v1/research", json=QUESTION)).json()
    folded = fold.run().model_dump()
    for differs in ("id", "created", "usage"):
        folded.pop(differs), whole.pop(differs)
    for step in folded["steps"] + whole["steps"]:
        step.pop("duration_ms")
    assert folded == whole
    assert whole["answer"] == "West African CFA franc"
    assert whole["steps"][0]["reasoning"] == "I need Mali."


async def test_sse_lines_carry_id_and_event_name(stage: Stage) -> None:
    body = (await stage.client.post("/v1/research", json={**QUESTION, "stream": True})).text
    first = body.split("\n\n")[0].split("\n")
    assert first[0] == "id: 0"
    assert first[1] == "event: run.started"


async def test_citations_point_at_the_answer_in_a_passage_of_this_run(stage: Stage) -> None:
    run = (await stage.client.post("/v1/research", json=QUESTION)).json()
    (citation,) = run["citations"]
    passage = next(p for s in run["steps"] for p in s["passages"] if p["index"] == citation["index"])
    assert passage["snippet"][citation["start"] : citation["end"]] == "West African CFA franc"


async def test_a_passage_of_one_line_is_shown_and_cited_as_text() -> None:
    line = "Mali uses the West African CFA franc."
    for title, text, shown in (
        (line, "", {"title": "", "snippet": line}),
        (line, "\n", {"title": "", "snippet": line}),
        (f'"{line}"', "", {"title": line, "snippet": ""}),
    ):
        retriever = StageRetriever(Found((Passage(id="1", title=title, text=text, score=1.0),)))
        async with running_stage(retriever=retriever) as stage:
            run = (await stage.client.post("/v1/research", json={"question": "Mali?"})).json()
        [passage] = run["steps"][0]["passages"]
        assert {name: passage[name] for name in shown} == shown
        cited = [line[citation["start"] : citation["end"]] for citation in run["citations"]]
        assert cited == (["West African CFA franc"] if shown["snippet"] else [])


async def test_an_answer_that_no_passage_holds_cites_nothing() -> None:
    engine = StageEngine(["<search> x </search>", "<answer> a made-up thing </answer>"])
    async with running_stage(engine=engine) as stage:
        run = (await stage.client.post("/v1/research", json=QUESTION)).json()
    assert run["answer"] == "a made-up thing"
    assert run["citations"] == []


async def test_the_engine_is_asked_for_prompt_plus_segments(stage: Stage) -> None:
    await stage.client.post("/v1/research", json=QUESTION)
    encode = stage.services.default.tokenizer.encode
    first, second = stage.engine.prompts
    observation = '\n\n<information>Doc 1(Title: "Mali") Mali uses the West African CFA franc.</information>\n\n'
    assert list(second) == [*first, *encode(SEARCH_TURN), *encode(observation)]
    assert stage.engine.params[0].stop == ("</search>", "</answer>")
    assert stage.engine.params[0].temperature == 0


async def test_a_failed_search_is_an_event_and_an_empty_result() -> None:
    retriever = StageRetriever(SearchFailed("timeout", "the retriever took too long"))
    async with running_stage(retriever=retriever) as stage:
        body = (await stage.client.post("/v1/research", json={**QUESTION, "stream": True})).text
        events = [json.loads(d) for d in sse_payloads(body)]
        failed = next(e for e in events if e["type"] == "search.failed")
        assert failed["error"] == {"code": "timeout", "message": "The search took too long."}
        assert events[-1]["status"] == "completed"
        tail = stage.services.default.tokenizer.encode("\n\n<information></information>\n\n")
        assert list(stage.engine.prompts[1][-len(tail) :]) == tail


async def test_without_searches_the_model_answers_closed_book() -> None:
    engine = StageEngine([ANSWER_TURN])
    async with running_stage(engine=engine) as stage:
        run = (await stage.client.post("/v1/research", json={**QUESTION, "max_searches": 0})).json()
    assert run["usage"]["searches"] == 0
    assert run["status"] == "completed"


async def test_a_model_that_never_answers_is_exhausted_after_its_turns() -> None:
    engine = StageEngine(["I do not know what to do."])
    async with running_stage(engine=engine) as stage:
        run = (await stage.client.post("/v1/research", json={**QUESTION, "max_turns": 2})).json()
    assert run["status"] == "exhausted"
    assert run["answer"] is None
    assert len(engine.prompts) == 3
    assert [s["invalid"] for s in run["steps"]] == ["no_action"] * 3


async def test_the_deadline_ends_a_run_that_hangs() -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine) as stage:
        run = (await stage.client.post("/v1/research", json={**QUESTION, "deadline_s": 0.2})).json()
        assert run["status"] == "deadline"
        assert engine.num_open == 0


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_frees_the_engine_and_its_slot(stream: bool) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with running_stage(engine=engine) as stage:
        asking = asyncio.ensure_future(
            httpx.AsyncClient().post(f"{stage.url}/v1/research", json={**QUESTION, "stream": stream}, timeout=30)
        )
        await eventually(lambda: engine.num_open == 1)
        assert stage.services.default.seats.num_running == 1
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await eventually(lambda: engine.num_open == 0)
        await eventually(lambda: stage.services.default.seats.num_running == 0)
        assert (
            'searchr1_runs_total{model="test-model",status="cancelled"} 1.0'
            in (await stage.client.get("/metrics")).text
        )


async def test_runs_beyond_the_maximum_are_shed_with_retry_after() -> None:
    hold = asyncio.Event()
    engine = StageEngine(hold=hold)
    async with running_stage(engine=engine, max_concurrent_runs=1) as stage:
        first = asyncio.ensure_future(stage.client.post("/v1/research", json=QUESTION))
        await eventually(lambda: engine.num_open == 1)
        for stream in (True, False):
            shed = await stage.client.post("/v1/research", json={**QUESTION, "stream": stream})
            assert shed.status_code == 503
            assert shed.json()["error"]["code"] == "overloaded"
            assert int(shed.headers["retry-after"]) > 0
        hold.set()
        assert (await first).status_code == 200


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineUnavailableError("vLLM is gone"), "engine_unavailable"),
        (EngineOverloadedError("vLLM's queue is full"), "engine_overloaded"),
    ],
)
async def test_an_engine_that_fails_is_told_in_both_forms(error: EngineUnavailableError, code: str) -> None:
    async with running_stage(engine=StageEngine(error=error)) as stage:
        for stream in (False, True):
            failed = await stage.client.post("/v1/research", json={**QUESTION, "stream": stream})
            assert failed.status_code == 503
            assert failed.json()["error"]["code"] == code


async def test_a_silent_stream_gets_heartbeats_that_are_comments() -> None:
    hold = asyncio.Event()
    async with running_stage(engine=StageEngine(hold=hold), heartbeat_s=0.05) as stage:
        asking = stage.client.stream("POST", "/v1/research", json={**QUESTION, "stream": True})
        async with asking as response:
            seen = ""
            async for text in response.aiter_text():
                seen += text
                if ": ping\n" in seen:
                    hold.set()
        assert seen.count("event: run.completed") == 1
