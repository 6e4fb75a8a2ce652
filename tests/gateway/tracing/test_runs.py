"""Traces of runs as a collector receives them: parents, attributes, and what is never in them."""

import asyncio
import json
import math
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes, url_attributes
from opentelemetry.semconv.schemas import Schemas

from searchr1.errors import EngineUnavailableError
from searchr1.gateway.tracing import names
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed
from tests.gateway.conftest import ANSWER_TURN, MODEL, SEARCH_TURN, Stage, StageEngine, StageRetriever, eventually
from tests.gateway.mcp.test_mcp import ERAS, connected
from tests.gateway.runs.test_question import CHAT, REWRITTEN
from tests.gateway.tracing.conftest import CLIENT_SPAN, CLIENT_TRACE, SAMPLED, UNSAMPLED, traced_stage
from tests.support.otlp_receiver import OtlpReceiver, Received

QUESTION = "Which currency is used in Mali?"
PASSAGE = Passage(
    id="7", title='"Mali"', text="Mali uses the West African CFA franc, a passage says.", url="https://m.li"
)
FOUND = Found((PASSAGE,), cache="hit", age_s=3.0, provider="tavily")


def three_turns() -> StageEngine:
    return StageEngine(completions=[SEARCH_TURN, SEARCH_TURN, ANSWER_TURN])


async def ask(stage: Stage, path: str = "/v1/research", body: dict[str, Any] | None = None, **headers: str) -> Any:
    answer = await stage.client.post(path, json=body or {"question": QUESTION}, headers=headers)
    assert answer.is_success, answer.text
    return answer.json()


def ms(span: Received) -> float:
    return (span.end_ns - span.start_ns) / 1e6


async def test_a_run_of_three_turns_is_one_trace_below_the_client_s_span(collector: OtlpReceiver) -> None:
    async with traced_stage(engine=three_turns(), retriever=StageRetriever(FOUND)) as stage:
        run = await ask(stage, traceparent=SAMPLED)
    request, agent = collector.only("POST"), collector.only("invoke_agent")
    chats, tools = collector.named("chat"), collector.named("execute_tool")
    assert {span.trace_id for span in collector.spans} == {CLIENT_TRACE}
    assert (request.parent_id, agent.parent_id) == (CLIENT_SPAN, request.span_id)
    assert {span.parent_id for span in (*chats, *tools)} == {agent.span_id}
    assert [span.name for span in (request, agent)] == ["POST /v1/research", "invoke_agent search-r1"]
    assert [span.name for span in (*chats, *tools)] == [f"chat {MODEL}"] * 3 + ["execute_tool search"] * 2
    assert [span.kind for span in (request, agent, chats[0], tools[0])] == ["server", *["internal"] * 3]
    assert all(agent.start_ns <= span.start_ns <= span.end_ns <= agent.end_ns for span in (*chats, *tools))
    assert not any(span.has_failed for span in collector.spans)
    assert agent.attributes[names.RUN_ID] == run["id"]
    assert agent.resource["service.name"] == "searchr1"
    assert agent.schema_url == Schemas.V1_41_0.value


async def test_spans_say_what_was_spent_and_found(collector: OtlpReceiver) -> None:
    async with traced_stage(engine=three_turns(), retriever=StageRetriever(FOUND)) as stage:
        usage = (await ask(stage))["usage"]
        prompts = [len(prompt) for prompt in stage.engine.prompts]
    agent, chats, tool = (
        collector.only("invoke_agent").attributes,
        collector.named("chat"),
        collector.named("execute")[0],
    )
    assert {
        names.OPERATION: "invoke_agent",
        names.AGENT: "search-r1",
        names.PROVIDER: "vllm",
        names.MODEL: MODEL,
        names.RUN_OUTCOME: "completed",
        names.RUN_TURNS: 3,
        names.RUN_SEARCHES: 2,
        names.INPUT_TOKENS: sum(prompts),
        names.OUTPUT_TOKENS: usage["completion_tokens"],
    }.items() <= agent.items()
    assert 0 <= agent[names.RUN_QUEUE_WAIT_S] <= agent[names.RUN_FIRST_TEXT_S] < ms(collector.only("invoke_agent"))
    assert [chat.attributes[names.TURN_NUMBER] for chat in chats] == [1, 2, 3]
    assert [chat.attributes[names.TURN_OUTCOME] for chat in chats] == ["search", "search", "answer"]
    assert [chat.attributes[names.INPUT_TOKENS] for chat in chats] == prompts
    assert sum(chat.attributes[names.OUTPUT_TOKENS] for chat in chats) == usage["completion_tokens"]
    assert {
        names.OPERATION: "chat",
        names.PROVIDER: "vllm",
        names.MODEL: MODEL,
        names.TEMPERATURE: 0.0,
        names.TOP_P: 1.0,
        names.MAX_TOKENS: 500,
        names.FINISH_REASONS: ["stop"],
        names.TURN_RETRIES: 0,
        names.TURN_RESUMES: 0,
    }.items() <= chats[0].attributes.items()
    assert tool.attributes == {
        names.OPERATION: "execute_tool",
        names.TOOL: "search",
        names.TOOL_TYPE: "datastore",
        names.TURN_NUMBER: 1,
        names.SEARCH_OUTCOME: "found",
        names.SEARCH_CACHE: "hit",
        names.SEARCH_PASSAGES: 1,
        names.SEARCH_PROVIDER: "tavily",
    }
    assert collector.only("POST").attributes[names.HTTP_STATUS] == 200


def test_the_names_are_those_of_the_conventions() -> None:
    own = {value for name, value in vars(names).items() if name.isupper() and str(value).startswith("searchr1.")}
    modules = (gen_ai, error_attributes, http_attributes, server_attributes, url_attributes)
    known = {value for module in modules for name, value in vars(module).items() if name.isupper()}
    operations = {one.value for one in gen_ai.GenAiOperationNameValues}
    told = {value for name, value in vars(names).items() if name.isupper()} - own - {names.SCHEMA_URL}
    assert told - operations <= known
    assert {names.CHAT, names.EXECUTE_TOOL, names.INVOKE_AGENT} <= operations


CONTENTS = (QUESTION, "currency of Mali", "a passage says", "West African CFA franc", "I need Mali", "m.li")


async def test_nothing_of_the_content_and_no_key_is_in_a_trace(collector: OtlpReceiver) -> None:
    keys: dict[str, Any] = {
        "api_keys": ("the-key-of-a-client",),
        "admin_key": "the-admin-key-here",
        "engine_api_key": "key-of-engine",
    }
    async with traced_stage(engine=three_turns(), retriever=StageRetriever(FOUND), **keys) as stage:
        await ask(stage, Authorization="Bearer the-key-of-a-client")
    told = b"".join(collector.raw)
    assert b"invoke_agent" in told
    assert [
        text for text in (*CONTENTS, *keys["api_keys"], "admin-key", "key-of-engine") if text.encode() in told
    ] == []


async def test_content_is_recorded_where_that_is_turned_on(collector: OtlpReceiver) -> None:
    async with traced_stage(content=True, retriever=StageRetriever(FOUND)) as stage:
        await ask(stage)
    agent, (first, last) = collector.only("invoke_agent").attributes, collector.named("chat")
    tool = collector.only("execute_tool").attributes

    def texts(span: dict[str, Any], name: str) -> list[tuple[str, str]]:
        return [(message["role"], message["parts"][0]["content"]) for message in json.loads(span[name])]

    assert texts(agent, names.INPUT_MESSAGES) == [("user", QUESTION)]
    assert texts(agent, names.OUTPUT_MESSAGES) == [("assistant", "West African CFA franc")]
    assert texts(first.attributes, names.OUTPUT_MESSAGES) == [("assistant", SEARCH_TURN)]
    [(role, read)] = texts(last.attributes, names.INPUT_MESSAGES)
    assert (role, "a passage says" in read, QUESTION in read) == ("user", True, True)
    assert json.loads(tool[names.TOOL_ARGUMENTS]) == {"query": "currency of Mali"}
    assert [passage["url"] for passage in json.loads(tool[names.TOOL_RESULT])] == ["https://m.li"]


async def test_a_failed_search_is_marked_and_the_run_is_not(collector: OtlpReceiver) -> None:
    failed = SearchFailed("rate_limited", "the provider says: no more of currency of Mali", provider="brave")
    async with traced_stage(retriever=StageRetriever(failed)) as stage:
        await ask(stage)
    tool, agent = collector.only("execute_tool"), collector.only("invoke_agent")
    assert (tool.has_failed, tool.attributes[names.ERROR_TYPE]) == (True, "rate_limited")
    assert (tool.attributes[names.SEARCH_OUTCOME], tool.attributes[names.SEARCH_PROVIDER]) == ("failed", "brave")
    assert "currency of Mali" not in tool.message
    assert not agent.has_failed


async def test_an_engine_s_failure_marks_its_completion_the_run_and_the_request(collector: OtlpReceiver) -> None:
    engine = StageEngine(error=EngineUnavailableError("the engine at http://10.1.2.3 said: Mali?"))
    async with traced_stage(engine=engine) as stage:
        answer = await stage.client.post("/v1/research", json={"question": QUESTION})
        assert answer.status_code == 503
    chat, agent, request = collector.only("chat"), collector.only("invoke_agent"), collector.only("POST")
    assert [span.has_failed for span in (chat, agent, request)] == [True] * 3
    kinds = [span.attributes[names.ERROR_TYPE] for span in (chat, agent, request)]
    assert kinds == ["engine_unavailable", "engine_unavailable", "503"]
    assert agent.attributes[names.RUN_OUTCOME] == "failed"
    assert names.FINISH_REASONS not in chat.attributes
    assert b"10.1.2.3" not in b"".join(collector.raw)


async def test_a_run_whose_deadline_passes_says_which_completion_it_broke_off(collector: OtlpReceiver) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with traced_stage(engine=engine) as stage:
        run = await ask(stage, body={"question": QUESTION, "deadline_s": 0.5})
    chat, agent = collector.only("chat"), collector.only("invoke_agent")
    assert (chat.attributes[names.ERROR_TYPE], chat.attributes[names.TURN_OUTCOME]) == ("deadline", "deadline")
    assert (run["status"], agent.attributes[names.RUN_OUTCOME], agent.has_failed) == ("deadline", "deadline", False)


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancelled_run_ends_all_its_spans(collector: OtlpReceiver, begun: bool) -> None:
    engine = StageEngine(hold=asyncio.Event() if begun else None)
    async with traced_stage(engine=engine, retriever=Silent()) as stage:
        asking = asyncio.create_task(stage.client.post("/v1/research", json={"question": QUESTION}))
        await eventually(lambda: bool(engine.num_open if begun else Silent.num_asked))
        asking.cancel()
        await asyncio.wait([asking])
        await eventually(lambda: stage.services.default.seats.num_running == 0)
    agent = collector.only("invoke_agent")
    assert (agent.attributes[names.RUN_OUTCOME], agent.has_failed) == ("cancelled", False)
    [last] = collector.named("chat") if begun else collector.named("execute_tool")
    assert last.attributes[names.TURN_OUTCOME if begun else names.SEARCH_OUTCOME] == "cancelled"
    assert not last.has_failed


class Silent(StageRetriever):
    """Never answers."""

    num_asked = 0

    async def search(self, query: str, k: int, deadline_s: float) -> Found:
        """Wait for ever."""
        Silent.num_asked += 1
        await asyncio.sleep(math.inf)
        raise AssertionError


async def test_each_choice_of_a_chat_is_a_run_below_the_one_request(collector: OtlpReceiver) -> None:
    body = {"model": MODEL, "messages": CHAT[:1], "n": 2, "temperature": 0.5, "seed": 7}
    async with traced_stage(max_queued_runs=8) as stage:
        await ask(stage, "/v1/chat/completions", body)
    request, agents = collector.only("POST"), collector.named("invoke_agent")
    assert [agent.parent_id for agent in agents] == [request.span_id] * 2
    for agent in agents:
        below = [span for span in collector.spans if span.parent_id == agent.span_id]
        assert min(below, key=lambda span: span.start_ns).name == f"chat {MODEL}"
    seeds = {chat.attributes[names.SEED] for chat in collector.named("chat")}
    assert len(seeds) == 2


async def test_a_run_in_the_background_outlives_its_request(collector: OtlpReceiver) -> None:
    engine = StageEngine(hold=asyncio.Event())
    async with traced_stage(engine=engine) as stage:
        await ask(stage, "/v1/responses", {"model": MODEL, "input": QUESTION, "background": True})
        assert engine.hold is not None
        await eventually(lambda: engine.num_open > 0)
        engine.hold.set()
        await eventually(lambda: stage.services.default.seats.num_running == 0)
    request, agent = collector.only("POST /v1/responses"), collector.only("invoke_agent")
    assert (agent.parent_id, agent.trace_id) == (request.span_id, request.trace_id)
    assert agent.end_ns > request.end_ns
    assert agent.attributes[names.RUN_OUTCOME] == "completed"


async def test_a_rewriting_is_in_the_trace_of_its_run(collector: OtlpReceiver) -> None:
    engine = StageEngine(completions=[REWRITTEN, SEARCH_TURN, ANSWER_TURN])
    async with traced_stage(rewrites=True, engine=engine) as stage:
        await ask(stage, "/v1/chat/completions", {"model": MODEL, "messages": CHAT})
    request, (rewriting, *turns) = collector.only("POST"), collector.named("chat")
    assert rewriting.parent_id == request.span_id
    assert rewriting.attributes[names.REWRITE_OUTCOME] == "rewritten"
    assert [turn.parent_id for turn in turns] == [collector.only("invoke_agent").span_id] * 2
    assert REWRITTEN.encode() not in b"".join(collector.raw)


async def test_a_rewriting_that_fails_is_marked(collector: OtlpReceiver) -> None:
    engine = StageEngine(completions=["...", SEARCH_TURN, ANSWER_TURN])
    async with traced_stage(rewrites=True, engine=engine) as stage:
        await ask(stage, "/v1/chat/completions", {"model": MODEL, "messages": CHAT})
    rewriting = collector.named("chat")[0]
    assert (rewriting.attributes[names.REWRITE_OUTCOME], rewriting.has_failed) == ("failed", True)


@pytest.mark.parametrize("mode", ERAS)
async def test_a_run_over_the_model_context_protocol_is_below_its_client(collector: OtlpReceiver, mode: str) -> None:
    async with traced_stage() as stage, connected(stage, mode=mode, traceparent=SAMPLED) as client:
        await client.call_tool("research", {"question": QUESTION})
    agent = collector.only("invoke_agent")
    assert (agent.trace_id, agent.parent_id) == (CLIENT_TRACE, CLIENT_SPAN)
    assert collector.named("POST") == []


async def test_what_the_client_does_not_sample_is_not_traced(collector: OtlpReceiver) -> None:
    async with traced_stage() as stage:
        await ask(stage, traceparent=UNSAMPLED)
    assert collector.spans == []


async def test_the_sampler_of_the_environment_decides_where_no_client_does(
    collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    async with traced_stage() as stage:
        await ask(stage)
        await ask(stage, traceparent=SAMPLED)
    assert {span.trace_id for span in collector.spans} == {CLIENT_TRACE}


async def test_a_nonsensical_trace_begins_a_new_one(collector: OtlpReceiver) -> None:
    async with traced_stage() as stage:
        await ask(stage, traceparent=f"00-{'0' * 32}-{CLIENT_SPAN}-01")
    assert collector.only("POST").parent_id == ""


async def test_the_environment_names_the_service(collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-gateway")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging")
    async with traced_stage() as stage:
        await ask(stage)
    resource = collector.only("POST").resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("my-gateway", "staging")


async def test_requests_that_begin_no_run_are_not_traced(collector: OtlpReceiver) -> None:
    async with traced_stage() as stage:
        await stage.client.get("/v1/research")
        await stage.client.get("/readyz")
        await ask(stage)
    assert {span.name for span in collector.named("POST")} == {"POST /v1/research"}
    assert len(collector.named("GET")) == 0
