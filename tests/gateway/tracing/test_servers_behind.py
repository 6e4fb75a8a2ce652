"""What engines and retrievers are told of the trace, and what the trace tells of them."""

import itertools
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from aiohttp import web

from searchr1.engines.factory import open_engine
from searchr1.gateway.tracing import names
from searchr1.retrieval.factory import open_retriever
from searchr1.retrieval.registry import open_provider, parse_spec
from searchr1.trace_context import TRACE_HEADERS
from tests.engines.vllm.fake_vllm import FakeVllm, Fault, serve_fake_vllm
from tests.gateway.conftest import StageRetriever, running_stage
from tests.gateway.test_engine_pool import TURNS, ask, bytes_model, settings
from tests.gateway.tracing.conftest import CLIENT_TRACE, SAMPLED, UNSAMPLED, traced_stage
from tests.retrieval.providers.site import serving
from tests.support.otlp_receiver import OtlpReceiver

FOUND = {"result": [[{"document": {"contents": '"Mali"\nIts capital is Bamako.'}, "score": 1.0}]]}


def fake_vllm() -> Any:
    return serve_fake_vllm(itertools.cycle(TURNS), encode=lambda text: list(text.encode()))


def parents(fakes: list[FakeVllm]) -> list[str]:
    """The spans below which the engine's own would be."""
    return [headers["traceparent"] for fake in fakes for headers in fake.headers]


async def test_engine_and_retriever_are_below_the_spans_that_ask_them(collector: OtlpReceiver) -> None:
    async with (
        fake_vllm() as fake,
        serving(lambda _: web.json_response(FOUND)) as site,
        open_engine(settings(fake.url).engine_config()) as engine,
        open_retriever(f"{site.url}/retrieve") as retriever,
        traced_stage(engine=cast(Any, engine), retriever=cast(Any, retriever), engine_url=fake.url) as stage,
    ):
        await ask(stage, traceparent=SAMPLED, tracestate="vendor=1")
        states = [headers["tracestate"] for headers in fake.headers]
    chats, tool = collector.named("chat"), collector.only("execute_tool")
    assert parents([fake]) == [f"00-{CLIENT_TRACE}-{chat.span_id}-01" for chat in chats]
    assert states == ["vendor=1"] * 2
    assert [chat.kind for chat in chats] == ["client"] * 2
    port = int(fake.url.rpartition(":")[2])
    for chat in chats:
        assert (chat.attributes[names.SERVER_ADDRESS], chat.attributes[names.SERVER_PORT]) == ("127.0.0.1", port)
        assert chat.attributes[names.TURN_REPLICA] == fake.url
    [(_, _, headers, _)] = site.requests
    assert headers["traceparent"] == f"00-{CLIENT_TRACE}-{tool.span_id}-01"


async def test_servers_behind_are_told_that_the_client_does_not_sample(collector: OtlpReceiver) -> None:
    async with (
        fake_vllm() as fake,
        open_engine(settings(fake.url).engine_config()) as engine,
        traced_stage(engine=cast(Any, engine), engine_url=fake.url) as stage,
    ):
        await ask(stage, traceparent=UNSAMPLED)
    assert {(told[3:35], told[-3:]) for told in parents([fake])} == {(CLIENT_TRACE, "-00")}
    assert collector.spans == []


async def test_a_completion_that_goes_on_elsewhere_says_where_it_broke_off(collector: OtlpReceiver) -> None:
    async with (
        fake_vllm() as one,
        fake_vllm() as two,
        open_engine(settings(one.url, two.url).engine_config()) as engine,
        traced_stage(engine=cast(Any, engine), engine_url=f"{one.url},{two.url}") as stage,
    ):
        one.model = two.model = bytes_model
        one.fault_of = lambda _: None if two.bodies else Fault.DROP
        two.fault_of = lambda _: None if one.bodies else Fault.DROP
        await ask(stage)
    chat = collector.only("chat")
    broke, again = chat.events
    assert (broke[0], again[0]) == (names.COMPLETION_BROKE, names.COMPLETION_ASKED_AGAIN)
    assert {broke[1][names.TURN_REPLICA], again[1][names.TURN_REPLICA]} == {one.url, two.url}
    assert chat.attributes[names.TURN_REPLICA] == again[1][names.TURN_REPLICA]
    assert (chat.attributes[names.TURN_RETRIES], chat.attributes[names.TURN_RESUMES]) == (1, 1)
    assert again[1][names.INPUT_TOKENS] > chat.attributes[names.INPUT_TOKENS]
    assert {told[36:52] for told in parents([one, two])} == {chat.span_id}
    assert not chat.has_failed


@pytest.mark.parametrize(("spec", "is_told"), [("opensearch:{url}/world", True), ("searxng:{url}", False)])
async def test_public_search_services_are_not_told_of_traces(spec: str, is_told: bool) -> None:
    async with serving(lambda _: web.json_response({})) as site, AsyncExitStack() as stack:
        provider = await stack.enter_async_context(open_provider(parse_spec(spec.format(url=site.url))))
        token = TRACE_HEADERS.set({"traceparent": SAMPLED})
        try:
            await provider.search("Mali", 3, 10)
        finally:
            TRACE_HEADERS.reset(token)
    assert ["traceparent" in headers for _, _, headers, _ in site.requests] == [is_told]


async def test_without_a_collector_the_client_s_trace_goes_on_as_it_is() -> None:
    async with (
        fake_vllm() as fake,
        open_engine(settings(fake.url).engine_config()) as engine,
        running_stage(engine=cast(Any, engine), retriever=StageRetriever()) as stage,
    ):
        await ask(stage, traceparent=SAMPLED)
    assert set(parents([fake])) == {SAMPLED}
