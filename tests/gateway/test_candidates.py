"""Candidates: which runs they get, that a conversation stays, and what happens while one is not well."""

import asyncio
import json
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from searchr1.gateway import services as gateway_services
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.served_model import ServedModel
from searchr1.identity import Caller
from tests.gateway.conftest import MODEL, Other, Stage, StageEngine, eventually, running_stage, sse_payloads

CANDIDATE = "next"
ANSWER = "<think> I know. </think>\n<answer> franc </answer>"


def candidate(share: float, name: str = CANDIDATE, **keys: Any) -> Other:
    return Other(name, StageEngine([ANSWER]), {"candidate_of": MODEL, "share": share, **keys})


def served() -> StageEngine:
    return StageEngine([ANSWER])


async def research(stage: Stage, **body: Any) -> dict[str, Any]:
    answer = await stage.client.post("/v1/research", json={"question": "Mali?", **body})
    assert answer.is_success, answer.text
    run: dict[str, Any] = answer.json()
    return run


def conversation(*texts: str) -> list[dict[str, str]]:
    """Messages of a user and an assistant in turns."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


async def chat(stage: Stage, *texts: str, model: str = MODEL) -> dict[str, Any]:
    body = {"model": model, "messages": conversation(*texts)}
    answer = await stage.client.post("/v1/chat/completions", json=body)
    assert answer.is_success, answer.text
    completion: dict[str, Any] = answer.json()
    return completion


async def respond(stage: Stage, text: str, previous: str | None = None) -> dict[str, Any]:
    body = {"model": MODEL, "input": text, "previous_response_id": previous}
    answer = await stage.client.post("/v1/responses", json=body)
    assert answer.is_success, answer.text
    response: dict[str, Any] = answer.json()
    return response


async def counted(stage: Stage, taken: str) -> float:
    text = (await stage.client.get("/metrics")).text
    found = re.search(rf'searchr1_candidate_requests_total{{model="{CANDIDATE}",taken="{taken}"}} (\S+)', text)
    return float(found[1]) if found else 0.0


async def test_a_candidate_gets_its_share_of_the_runs_and_says_so() -> None:
    async with running_stage(engine=served(), others=[candidate(0.25)]) as stage:
        runs = [run for _ in range(10) for run in await asyncio.gather(*(research(stage) for _ in range(20)))]
        models = Counter(run["model"] for run in runs)
        assert 20 <= models[CANDIDATE] <= 85, "200 draws of 1/4: outside is less likely than one in a million"
        assert models[CANDIDATE] == await counted(stage, "yes")
        one = next(run for run in runs if run["model"] == CANDIDATE)
        stored = (await stage.client.get(f"/v1/research/{one['id']}")).json()
        assert stored["model"] == CANDIDATE
        metrics = (await stage.client.get("/metrics")).text
        assert f'searchr1_runs_total{{model="{CANDIDATE}",status="completed"}} {models[CANDIDATE]}.0' in metrics


@pytest.mark.parametrize(("share", "answers"), [(0.0, MODEL), (1.0, CANDIDATE)])
async def test_none_and_all(share: float, answers: str) -> None:
    async with running_stage(engine=served(), others=[candidate(share)]) as stage:
        assert {(await research(stage))["model"] for _ in range(5)} == {answers}
        assert {(await chat(stage, f"Question {n}?"))["model"] for n in range(5)} == {answers}


async def test_a_candidate_can_be_asked_by_its_own_name() -> None:
    async with running_stage(engine=served(), others=[candidate(0.0)]) as stage:
        assert (await research(stage, model=CANDIDATE))["model"] == CANDIDATE
        assert (await chat(stage, "Mali?", model=CANDIDATE))["model"] == CANDIDATE
        assert await counted(stage, "yes") == 0


async def test_several_candidates_share() -> None:
    others = [candidate(0.5), candidate(0.5, "other")]
    async with running_stage(engine=served(), others=others) as stage:
        assert {(await chat(stage, f"Question {n}?"))["model"] for n in range(30)} == {CANDIDATE, "other"}


async def test_a_chat_stays_where_it_began_and_so_does_a_question_asked_again() -> None:
    async with running_stage(engine=served(), others=[candidate(0.5)]) as stage:
        first = {f"Question {n}?": (await chat(stage, f"Question {n}?"))["model"] for n in range(16)}
        assert set(first.values()) == {MODEL, CANDIDATE}
        for question, model in first.items():
            assert (await chat(stage, question, "franc", "And Chad?"))["model"] == model
            assert (await chat(stage, question, "franc", "And Chad?", "franc", "And Togo?"))["model"] == model


async def test_every_gateway_sends_a_conversation_to_the_same_model() -> None:
    async with (
        running_stage(engine=served(), others=[candidate(0.5)]) as one,
        running_stage(engine=served(), others=[candidate(0.5)]) as other,
    ):
        for n in range(8):
            assert (await chat(one, f"Question {n}?"))["model"] == (await chat(other, f"Question {n}?"))["model"]


async def test_responses_stay_where_they_began() -> None:
    async with running_stage(engine=served(), others=[candidate(0.5)]) as stage:
        seen = set()
        for n in range(12):
            first = await respond(stage, f"Question {n}?")
            second = await respond(stage, "And Chad?", first["id"])
            third = await respond(stage, "And Togo?", second["id"])
            assert first["model"] == second["model"] == third["model"]
            seen.add(first["model"])
        assert seen == {MODEL, CANDIDATE}


async def test_native_runs_stay_with_the_run_that_they_follow() -> None:
    async with running_stage(engine=served(), others=[candidate(0.5)]) as stage:
        firsts = [await research(stage) for _ in range(12)]
        assert {run["model"] for run in firsts} == {MODEL, CANDIDATE}
        for first in firsts:
            second = await research(stage, previous_run_id=first["id"])
            third = await research(stage, previous_run_id=second["id"])
            assert first["model"] == second["model"] == third["model"]


async def test_a_candidate_that_is_not_well_gets_no_share_which_is_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger=gateway_services.__name__)
    other = candidate(1.0)
    async with running_stage(engine=served(), others=[other]) as stage:
        first = await research(stage)
        assert first["model"] == CANDIDATE
        watch = stage.services.readiness.engines[CANDIDATE]
        other.engine.is_ready = False
        watch.doubt()
        await eventually(lambda: not watch.part.ok)
        assert (await research(stage, previous_run_id=first["id"]))["model"] == MODEL
        assert (await chat(stage, "Mali?"))["model"] == MODEL
        assert await counted(stage, "no") == 2
        refused = await stage.client.post("/v1/research", json={"question": "Mali?", "model": CANDIDATE})
        assert refused.status_code == 503, "who asks for it by its name is told"
        other.engine.is_ready = True
        watch.doubt()
        await eventually(lambda: watch.part.ok)
        assert (await research(stage))["model"] == CANDIDATE
    lines = [record.getMessage() for record in caplog.records if "candidate" in record.getMessage()]
    assert lines == [f"the share of the candidate {CANDIDATE} goes to {MODEL}: its engine is unreachable"]


async def test_a_candidate_that_is_full_refuses_nobody() -> None:
    other = candidate(1.0, max_concurrent_runs=1)
    other.engine.hold = asyncio.Event()
    async with running_stage(engine=served(), others=[other]) as stage:
        held = asyncio.create_task(research(stage))
        await eventually(lambda: other.engine.num_open == 1)
        assert (await research(stage))["model"] == MODEL
        other.engine.hold.set()
        assert (await held)["model"] == CANDIDATE


async def streamed(stage: Stage) -> dict[str, Any]:
    """The last chunk of a chat completion's stream."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Mali?"}], "stream": True}
    answer = await stage.client.post("/v1/chat/completions", json=body)
    assert answer.is_success, answer.text
    *_, chunk, done = sse_payloads(answer.text)
    assert done == "[DONE]"
    last: dict[str, Any] = json.loads(chunk)
    return last


async def called(stage: Stage) -> dict[str, Any]:
    """What the tool ``research`` gives."""
    params = {"name": "research", "arguments": {"question": "Mali?"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    accept = {"accept": "application/json, text/event-stream"}
    answer = await stage.client.post("/mcp", json=call, headers=accept)
    assert answer.is_success, answer.text
    [result] = [json.loads(one) for one in sse_payloads(answer.text)]
    given: dict[str, Any] = result["result"]["structuredContent"]
    return given


@contextmanager
def filling_up(model: ServedModel) -> Iterator[None]:
    """Until the block ends, have someone else take a seat of ``model`` once a run has its plan."""
    with ExitStack() as meanwhile, pytest.MonkeyPatch.context() as patch:
        admit = model.admission.plan

        def plan(*given: Any, **options: Any) -> Plan:
            meanwhile.enter_context(model.seats.seat(Caller("someone else", "theirs")))
            return admit(*given, **options)

        patch.setattr(model.admission, "plan", plan)
        yield


Ask = Callable[[Stage], Awaitable[dict[str, Any]]]
ASKS: dict[str, Ask] = {
    "research": research,
    "chat": lambda stage: chat(stage, "Mali?"),
    "chat stream": streamed,
    "responses": lambda stage: respond(stage, "Mali?"),
    "tool": called,
}


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS)
async def test_a_candidate_that_fills_up_before_a_run_has_its_seat_refuses_nobody(ask: Ask) -> None:
    others = [candidate(1.0, max_concurrent_runs=1)]
    async with running_stage(engine=served(), others=others) as stage:
        with filling_up(stage.services.models[CANDIDATE]):
            assert (await ask(stage))["model"] == MODEL
        assert (await counted(stage, "yes"), await counted(stage, "no")) == (0, 1)
        assert (await ask(stage))["model"] == CANDIDATE
        assert (await counted(stage, "yes"), await counted(stage, "no")) == (1, 1)


async def test_whoever_asks_for_a_candidate_by_its_name_is_refused_where_it_fills_up() -> None:
    async with running_stage(engine=served(), others=[candidate(1.0, max_concurrent_runs=1)]) as stage:
        with filling_up(stage.services.models[CANDIDATE]):
            refused = await stage.client.post("/v1/research", json={"question": "Mali?", "model": CANDIDATE})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "overloaded")
