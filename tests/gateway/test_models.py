"""Several models behind one gateway: ``model`` chooses engine, bounds, format and seats, on every API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.gateway.conftest import MODEL, Other, Stage, StageEngine, eventually, running_stage

SMALL = "small-3b"
SMALL_TURN = "<think> I know. </think>\n<answer> from the small one </answer>"


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    small = Other(SMALL, StageEngine([SMALL_TURN]), {"max_turns": 2, "max_context_tokens": 3000})
    async with running_stage(others=[small]) as running:
        yield running


async def by_chat(stage: Stage, model: str | None, **more: Any) -> httpx.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Mali?"}], **more}
    return await stage.client.post("/v1/chat/completions", json=body)


async def by_responses(stage: Stage, model: str | None, **more: Any) -> httpx.Response:
    return await stage.client.post("/v1/responses", json={"model": model, "input": "Mali?", **more})


async def by_research(stage: Stage, model: str | None, **more: Any) -> httpx.Response:
    return await stage.client.post("/v1/research", json={"model": model, "question": "Mali?", **more})


WAYS = [by_chat, by_responses, by_research]


@pytest.mark.parametrize("ask", WAYS)
async def test_the_named_model_answers_and_the_answer_says_which(stage: Stage, ask: Any) -> None:
    big, small = await ask(stage, MODEL), await ask(stage, SMALL)
    assert (big.json()["model"], small.json()["model"]) == (MODEL, SMALL)
    assert "CFA franc" in big.text
    assert "from the small one" in small.text
    assert len(stage.engine.prompts) == 2
    metrics = (await stage.client.get("/metrics")).text
    for name in (MODEL, SMALL):
        assert f'searchr1_runs_total{{model="{name}",status="completed"}} 1.0' in metrics


async def test_a_request_that_names_no_model_gets_the_default(stage: Stage) -> None:
    assert (await by_research(stage, None)).json()["model"] == MODEL


@pytest.mark.parametrize("ask", WAYS)
async def test_an_unknown_model_is_told_with_those_that_are_served(stage: Stage, ask: Any) -> None:
    answer = await ask(stage, "smal-3b")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert f"serves {MODEL!r}, {SMALL!r}" in error["message"]


async def test_all_models_are_listed_with_their_own_context(stage: Stage) -> None:
    listed = (await stage.client.get("/v1/models")).json()["data"]
    assert [(one["id"], one["max_model_len"]) for one in listed] == [(MODEL, 4596), (SMALL, 3500)]
    assert (await stage.client.get(f"/v1/models/{SMALL}")).json()["max_model_len"] == 3500
    assert (await stage.client.get("/v1/models/none")).status_code == 404


async def test_bounds_are_the_models_own(stage: Stage) -> None:
    refused = await by_research(stage, SMALL, max_turns=3)
    assert "allows at most 2" in refused.json()["error"]["message"]
    assert (await by_research(stage, MODEL, max_turns=3)).status_code == 200


async def test_a_full_model_refuses_and_the_others_go_on() -> None:
    hold = asyncio.Event()
    small = Other(SMALL, StageEngine([SMALL_TURN], hold=hold), {"max_concurrent_runs": 1})
    async with running_stage(others=[small]) as stage:
        waiting = asyncio.create_task(by_chat(stage, SMALL))
        await eventually(lambda: small.engine.num_open == 1)
        for ask in WAYS:
            full = await ask(stage, SMALL)
            assert (full.status_code, full.json()["error"]["code"]) == (503, "overloaded")
            assert (await ask(stage, MODEL)).status_code == 200
        hold.set()
        assert (await waiting).status_code == 200


@pytest.mark.parametrize("ask", WAYS)
@pytest.mark.parametrize("down", [MODEL, SMALL])
async def test_a_model_whose_engine_is_down_refuses_and_the_gateway_stays_ready(ask: Any, down: str) -> None:
    small = Other(SMALL, StageEngine([SMALL_TURN]))
    async with running_stage(others=[small]) as stage:
        engines = {MODEL: stage.engine, SMALL: small.engine}
        engines[down].is_ready = False
        watches = stage.services.readiness.engines
        watches[down].doubt()
        await eventually(lambda: not watches[down].part.ok)
        answers = {name: await ask(stage, name) for name in engines}
        assert {name: answer.status_code for name, answer in answers.items()} == {
            name: 503 if name == down else 200 for name in engines
        }
        ready = await stage.client.get("/readyz")
        assert ready.status_code == 200
        words = {name: "unreachable" if name == down else "ok" for name in engines}
        assert {name: told["engine"] for name, told in ready.json()["models"].items()} == words


async def test_a_gateway_of_which_no_model_is_well_is_not_ready() -> None:
    small = Other(SMALL, StageEngine(is_ready=False))
    async with running_stage(engine=StageEngine(is_ready=False), others=[small]) as stage:
        ready = await stage.client.get("/readyz")
        assert (ready.status_code, ready.json()["reason"]) == (503, "unreachable")
        assert (await by_chat(stage, SMALL)).json()["error"]["code"] == "engine_unavailable"


async def test_a_model_has_a_format_of_its_own() -> None:
    answer = "Reasoning, then \\boxed{Bamako}"
    other = Other("o1", StageEngine([answer]), {"profile": "search-o1"})
    async with running_stage(others=[other]) as stage:
        assert (await by_research(stage, "o1")).json()["answer"] == "Bamako"
        asked = stage.services.models["o1"].tokenizer.decode(other.engine.prompts[0])
        assert "<|begin_search_query|>" in asked


async def test_a_replay_asks_the_model_of_the_run(stage: Stage) -> None:
    run = (await by_research(stage, SMALL)).json()
    again = await stage.client.post("/v1/research/replay", json={"run_id": run["id"]})
    assert (again.json()["model"], again.json()["answer"]) == (SMALL, "from the small one")
