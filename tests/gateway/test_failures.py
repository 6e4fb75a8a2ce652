"""What clients are told of failures: over every API and form, a status, a code and a fixed sentence, and no more.

Each failure here carries a secret in its own words. It may stand in the log, and nowhere else.
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from typing import Any, cast, get_args

import httpx
import pytest

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.errors import EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.gateway.failures import RUN_FAILURES, SEARCH_FAILURES
from searchr1.gateway.runs.errors import NoSlotError
from searchr1.gateway.runs.seats import Seats
from searchr1.identity import ANYONE
from searchr1.loop.types import TokenIds
from searchr1.retrieval.base import FailureKind, SearchFailed
from searchr1.scheduling.options import SchedulingOptions
from tests.engines.vllm.fake_vllm import Fault, serve_fake_vllm
from tests.gateway.conftest import (
    ANSWER_TURN,
    MODEL,
    SEARCH_TURN,
    Stage,
    StageEngine,
    StageRetriever,
    running_stage,
    sse_payloads,
)

SECRET = "f4-sentinel"
WORDS = f"the engine at http://svc:{SECRET}-key@{SECRET}.internal:8000 answered 500: {SECRET} body"
QUESTION = "Which currency is used in Mali?"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
SURFACES: dict[str, tuple[str, dict[str, Any]]] = {
    "research": ("/v1/research", {"question": QUESTION}),
    "research stream": ("/v1/research", {"question": QUESTION, "stream": True}),
    "research stream, not stored": ("/v1/research", {"question": QUESTION, "stream": True, "store": False}),
    "chat": ("/v1/chat/completions", CHAT),
    "chat stream": ("/v1/chat/completions", {**CHAT, "stream": True}),
    "chat of two": ("/v1/chat/completions", {**CHAT, "n": 2}),
    "chat of two, stream": ("/v1/chat/completions", {**CHAT, "n": 2, "stream": True}),
    "responses": ("/v1/responses", {"model": MODEL, "input": QUESTION}),
    "responses stream": ("/v1/responses", {"model": MODEL, "input": QUESTION, "stream": True}),
    "responses background stream": (
        "/v1/responses",
        {"model": MODEL, "input": QUESTION, "stream": True, "background": True},
    ),
}
ONE_OF_EACH = ("research stream", "chat", "chat of two, stream", "responses stream")


class FailingEngine(StageEngine):
    """Fails as ``failure`` says at once, or after ``completions`` that it gives first."""

    def __init__(self, failure: Exception | None, completions: list[str] | None = None) -> None:
        super().__init__(completions or [])
        self.failure = failure
        self.num_failing = 0

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        if len(self.prompts) < len(self.completions):
            async for chunk in super().generate(prompt_ids, params, session=session, priority=priority):
                yield chunk
            return
        self.num_failing += 1
        if self.failure is None:
            await asyncio.Event().wait()
        else:
            raise self.failure
        yield Chunk("", ())


FAILURES: dict[str, tuple[Exception | None, int, str]] = {
    "unavailable": (EngineUnavailableError(WORDS), 503, "engine_unavailable"),
    "overloaded": (EngineOverloadedError(WORDS), 503, "engine_overloaded"),
    "broken": (EngineError(WORDS), 502, "engine_error"),
    "bug": (RuntimeError(WORDS), 500, "internal"),
    "silent": (None, 504, "deadline"),
}
DEADLINES_S = {"silent": 1, "overloaded": 1, "unavailable": 1}
"""Deadlines of runs that would wait for them, or ask the engine again until then."""


async def everything_told(stage: Stage) -> str:
    """All that a client could ask for afterwards, in one text."""
    texts = [response.text for response in [await stage.client.get(path) for path in ("/readyz", "/metrics")]]
    listed = await stage.client.get("/v1/research", params={"limit": 100})
    for run in listed.json()["data"]:
        kept = [await stage.client.get(f"/v1/research/{run['id']}{path}") for path in ("", "/events")]
        texts += [response.text for response in kept]
        replayed = await stage.client.post("/v1/research/replay", json={"run_id": run["id"]})
        texts += [replayed.text, str(replayed.headers)]
    return "\n".join([*texts, listed.text])


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("surface", SURFACES)
async def test_a_run_that_gave_nothing_is_an_error_with_its_status(
    surface: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, status, code = FAILURES[failure]
    path, body = SURFACES[surface]
    async with running_stage(engine=FailingEngine(error), deadline_s=DEADLINES_S.get(failure, 60)) as stage:
        answer = await stage.client.post(path, json=body, headers={"x-request-id": "req-42"})
        told = await everything_told(stage)
        assert stage.services.default.seats.num_running == 0
        metrics = stage.services.metrics.render().decode()
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["message"] == RUN_FAILURES[code].message
    assert ("retry-after" in answer.headers) == (status == 503)
    assert SECRET not in answer.text + str(answer.headers) + told
    assert f'searchr1_runs_failed_total{{code="{code}",model="{MODEL}"}}' in metrics
    assert 'searchr1_runs_total{model="test-model",status="cancelled"} 0.0' in metrics or "chat of two" in surface
    if error is not None:
        assert SECRET in caplog.text
    assert QUESTION not in caplog.text


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("surface", ONE_OF_EACH)
async def test_a_run_that_fails_after_some_output_says_so_where_it_stands(
    surface: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    error, status, code = FAILURES[failure]
    path, body = SURFACES[surface]
    num_choices = body.get("n", 1)
    engine = FailingEngine(error, [SEARCH_TURN] * num_choices)
    async with running_stage(engine=engine, deadline_s=DEADLINES_S.get(failure, 60)) as stage:
        answer = await stage.client.post(path, json=body)
        told = await everything_told(stage)
    assert SECRET not in answer.text + told
    if error is not None:
        assert SECRET in caplog.text
    if failure == "silent":
        assert answer.status_code == 200  # What there is of a run with output is given at its deadline.
    elif not body.get("stream"):
        assert answer.status_code == status
        assert answer.json()["error"]["code"] == code
    else:
        assert answer.status_code == 200
        assert RUN_FAILURES[code].message in answer.text
        last = json.loads(sse_payloads(answer.text)[-1])
        assert "error" in last or last["type"] in ("run.failed", "response.failed")


@pytest.mark.parametrize("kind", get_args(FailureKind))
@pytest.mark.parametrize("surface", ONE_OF_EACH)
async def test_a_search_that_fails_is_told_by_its_kind_alone(
    surface: str, kind: FailureKind, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, body = SURFACES[surface]
    failed = SearchFailed(kind, f"http://svc:{SECRET}@{SECRET}.internal/retrieve answered {SECRET}", provider="http")
    async with running_stage(retriever=StageRetriever(cast(Any, failed))) as stage:
        answer = await stage.client.post(path, json=body)
        told = await everything_told(stage)
    assert answer.status_code == 200
    assert SECRET not in answer.text + told
    assert SECRET in caplog.text
    if path == "/v1/research" and body.get("stream"):
        assert SEARCH_FAILURES[kind] in answer.text


@pytest.mark.parametrize("fault", [*Fault, None])
@pytest.mark.parametrize("surface", ONE_OF_EACH)
async def test_words_and_address_of_a_real_server_reach_no_client(
    surface: str, fault: Fault | None, caplog: pytest.LogCaptureFixture
) -> None:
    """``None`` is a server that is not there any more."""
    path, body = SURFACES[surface]
    async with serve_fake_vllm([], encode=lambda text: list(text.encode())) as fake:
        fake.completions = iter([["<think> one", " two", " three </think>"]] * 9)
        fake.fault = fault
        address = fake.url.removeprefix("http://")
        url = f"http://svc:{SECRET}@{address}" if fault is not None else f"http://svc:{SECRET}@127.0.0.1:9"
        async with (
            VllmHttpEngine(url, "fake") as engine,
            running_stage(engine=cast(Any, engine), deadline_s=2) as stage,
        ):
            stage.services.readiness.engines[MODEL].part.note(ok=True)
            answer = await stage.client.post(path, json=body)
            told = answer.text + str(answer.headers) + await everything_told(stage)
    assert not answer.is_success or body.get("stream") or fault is Fault.STALL
    for word in (
        SECRET,
        address,
        "127.0.0.1:9",
        "EngineCore",
        "must be at least",
        "currently busy",
        "Too many requests",
    ):
        assert word not in told, word
    assert fault is Fault.STALL or any(word in caplog.text for word in ("failed", "runs are refused"))


async def test_answers_before_any_run_quote_little_of_a_request(stage: Stage) -> None:
    for body in (
        {"question": QUESTION, "x" * 100_000: 1},
        {"question": QUESTION, "cache": "y" * 100_000},
        {"question": {"nested": "z" * 100_000}},
    ):
        refused = await stage.client.post("/v1/research", json=body)
        assert refused.status_code == 400
        assert len(refused.text) < 2000


async def test_a_run_of_an_engine_that_is_known_to_be_gone_is_refused_at_once(caplog: pytest.LogCaptureFixture) -> None:
    engine = StageEngine(is_ready=False)
    async with running_stage(engine=engine) as stage:
        for path, body in SURFACES.values():
            refused = await stage.client.post(path, json=body)
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "engine_unavailable"
            assert int(refused.headers["retry-after"]) >= 2
        metrics = stage.services.metrics.render().decode()
    assert engine.prompts == []
    assert f'searchr1_requests_shed_total{{reason="engine_unreachable"}} {len(SURFACES)}.0' in metrics
    assert caplog.text.count("runs are refused") == 1


async def test_an_engine_that_takes_fewer_tokens_than_it_may_be_sent_still_gets_runs() -> None:
    async with running_stage(engine=StageEngine([ANSWER_TURN])) as stage:
        stage.services.readiness.engines[MODEL].part.note(ok=False, reason="context_too_short")
        assert (await stage.client.get("/readyz")).status_code == 503
        answered: httpx.Response = await stage.client.post("/v1/research", json={"question": QUESTION})
        assert answered.status_code == 200


async def test_a_full_server_refuses_before_it_spends_anything_on_a_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_stage(max_concurrent_runs=1) as stage:
        monkeypatch.setattr(type(stage.services.default.admission), "plan", None)  # Whoever plans now fails.
        with stage.services.default.seats.seat(ANYONE):
            for path, body in SURFACES.values():
                refused = await stage.client.post(path, json=body)
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "overloaded"
                assert int(refused.headers["retry-after"]) >= 1
            # Not even the body matters.
            assert (await stage.client.post("/v1/research", json={"question": 3})).status_code == 503
        metrics = stage.services.metrics.render().decode()
    assert f'searchr1_requests_shed_total{{reason="no_slot"}} {len(SURFACES) + 1}.0' in metrics
    assert caplog.text.count("runs are refused") == 1


def test_those_who_are_refused_are_told_to_wait_longer_the_more_there_are() -> None:
    seats = Seats(StageEngine(), SchedulingOptions(max_runs=2, max_queued=0))
    waits_s = []
    with seats.seat(ANYONE), seats.seat(ANYONE):
        for _ in range(100):
            with pytest.raises(NoSlotError) as refused, seats.seat(ANYONE):
                pass
            waits_s.append(refused.value.retry_after_s)
    assert waits_s == sorted(waits_s)
    assert 1 <= waits_s[0] < waits_s[-1] <= 60
