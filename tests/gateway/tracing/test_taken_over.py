"""Traces of runs that change their gateway: the new owner goes on in the trace of the first one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.access.stored_plan import decode_plan, encode_plan
from searchr1.gateway.runs.takeover import stored_plan_of
from searchr1.gateway.tracing import names
from searchr1.identity import ANYONE
from searchr1.redis_client import open_redis
from searchr1.trace_context import TRACE_HEADERS
from tests.gateway.conftest import Stage, StageEngine, eventually, running_stage, sse_payloads
from tests.gateway.runs.test_takeovers import GONE, OURS, FaultyStore, Taker
from tests.gateway.tracing.conftest import CLIENT_SPAN, CLIENT_TRACE, SAMPLED, traced_stage
from tests.support.otlp_receiver import OtlpReceiver
from tests.support.redis_server import RedisServer

pytestmark = pytest.mark.redis
OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


@asynccontextmanager
async def stored_runs(redis: RedisServer) -> AsyncIterator[FaultyStore]:
    store = FaultyStore(open_redis(redis.url), open_redis(redis.url), ttl_s=60)
    try:
        yield store
    finally:
        await store.aclose()


async def take(stage: Stage, store: FaultyStore, traceparent: str) -> None:
    """Take over a run that was stored with ``traceparent``, for somebody with a trace of his own, to its end."""
    plan = stage.services.default.admission.plan("Mali?", RunOptions(), caller=ANYONE, run_id=GONE.id, stream=True)
    await store.delete(replace(GONE, replica=OURS))
    await store.create(GONE, encode_plan(stored_plan_of(plan, grace_s=None, traceparent=traceparent)))
    taker = Taker(stage, store)
    token = TRACE_HEADERS.set({"traceparent": OTHER})
    try:
        await taker.takeovers.take(GONE)
    finally:
        TRACE_HEADERS.reset(token)
    await asyncio.gather(*taker.driving)


async def test_a_run_that_was_taken_over_goes_on_in_its_trace(collector: OtlpReceiver, redis: RedisServer) -> None:
    async with traced_stage() as stage, stored_runs(redis) as store:
        await take(stage, store, SAMPLED)
    agent, chats = collector.only("invoke_agent"), collector.named("chat")
    assert (agent.trace_id, agent.parent_id) == (CLIENT_TRACE, CLIENT_SPAN)
    assert (agent.attributes[names.RUN_TAKEOVERS], agent.attributes[names.RUN_ID]) == (1, GONE.id)
    assert [chat.parent_id for chat in chats] == [agent.span_id] * 2


async def test_a_run_of_a_gateway_without_traces_begins_one_where_it_is_taken_over(
    collector: OtlpReceiver, redis: RedisServer
) -> None:
    async with traced_stage() as stage, stored_runs(redis) as store:
        await take(stage, store, "")
    agent = collector.only("invoke_agent")
    assert agent.parent_id == ""
    assert agent.trace_id != "1" * 32


@pytest.mark.parametrize("is_traced", [True, False])
async def test_the_stored_plan_names_the_run_s_span_or_else_its_client_s(
    collector: OtlpReceiver, redis: RedisServer, is_traced: bool
) -> None:
    engine = StageEngine(hold=asyncio.Event())
    serving = traced_stage if is_traced else running_stage
    async with stored_runs(redis) as store, serving(engine=engine, redis_url=redis.url) as stage:
        assert engine.hold is not None
        body = {"question": "Mali?", "stream": True}
        async with stage.client.stream("POST", "/v1/research", json=body, headers={"traceparent": SAMPLED}) as stream:
            data = await store.plan(stream.headers["x-run-id"])
            assert data is not None
            engine.hold.set()
            assert "run.completed" in sse_payloads((await stream.aread()).decode())[-1]
    told = decode_plan(data).traceparent
    assert told == (f"00-{CLIENT_TRACE}-{collector.only('invoke_agent').span_id}-01" if is_traced else SAMPLED)


async def test_a_run_that_goes_on_elsewhere_ends_its_spans_here(collector: OtlpReceiver, redis: RedisServer) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with stored_runs(redis) as store, traced_stage(engine=engine, redis_url=redis.url) as stage:
        assert engine.hold is not None
        body = {"question": "Mali?", "stream": True}
        async with stage.client.stream("POST", "/v1/research", json=body) as stream:
            await eventually(lambda: engine.num_open > 0)
            state = await store.state(stream.headers["x-run-id"])
            assert state is not None
            assert await store.take(state.meta, "other") is not None
            engine.hold.set()
            engine.hold.clear()  # The next completion waits again.
            await stream.aread()
    agent, chats = collector.only("invoke_agent"), collector.named("chat")
    assert agent.attributes[names.RUN_OUTCOME] == "moved"
    assert {chat.parent_id for chat in chats} == {agent.span_id}
