"""``/v1/responses`` over HTTP: created, streamed, taken up again, cancelled, deleted, followed up."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from openai.types.responses import CompactedResponse

from searchr1.engines.base import Shaping
from searchr1.errors import EngineError
from searchr1.gateway.openai.ignored import IGNORED_HEADER
from searchr1.retrieval.base import Found
from tests.gateway.conftest import (
    ANSWER_TURN,
    MALI,
    MODEL,
    SEARCH_TURN,
    Stage,
    StageEngine,
    StageRetriever,
    byte_tokenizer,
    eventually,
    running_stage,
    sse_payloads,
)
from tests.gateway.responses.conftest import (
    ITEM_LIST,
    OPEN_RESPONSES_FIELDS,
    RESPONSE,
    STREAM_EVENT,
    checked,
    types_of,
)

QUESTION = "Which currency is used in Mali?"
ANSWER = "West African CFA franc"
SEARCH = {"type": "web_search"}
TOOLS: list[Any] = [
    {"type": "function", "name": "f", "parameters": {"type": "object", "maximum": 2**70}, "strict": True},
    {"type": "function", "name": "bare"},
    {"type": "custom", "name": "f"},
    {"type": "mcp", "server_label": "x", "server_url": "https://mcp.example"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {"type": "file_search", "vector_store_ids": ["x"]},
    {"type": "image_generation"},
    {"type": "tool_of_tomorrow", "n": [1.5, None, True]},
]


async def post(stage: Stage, **body: object) -> httpx.Response:
    return await stage.client.post("/v1/responses", json={"model": MODEL, "input": QUESTION, **body})


async def create(stage: Stage, **body: object) -> dict[str, Any]:
    response = await post(stage, **body)
    assert response.status_code == 200, response.text
    made: dict[str, Any] = response.json()
    checked(RESPONSE, made)
    return made


async def events(stage: Stage, response_id: str, **params: Any) -> list[dict[str, Any]]:
    response = await stage.client.get(f"/v1/responses/{response_id}", params={"stream": "true", **params})
    assert response.status_code == 200, response.text
    return [json.loads(data) for data in sse_payloads(response.text)]


def prompt(stage: Stage) -> str:
    """Return the prompt of the last run; each run has two completions."""
    return byte_tokenizer().decode(stage.engine.prompts[-2])


@pytest.fixture
async def held() -> AsyncIterator[Stage]:
    """A gateway whose engine waits before its last word, and waits no more when the test is over."""
    hold = asyncio.Event()
    async with running_stage(engine=StageEngine(hold=hold)) as stage:
        yield stage
        hold.set()


async def test_a_whole_response(stage: Stage) -> None:
    made = await create(stage, tools=[SEARCH])
    assert made["status"] == "completed"
    assert [item["type"] for item in made["output"]] == ["reasoning", "web_search_call", "reasoning", "message"]
    [part] = made["output"][-1]["content"]
    assert part["text"] == ANSWER
    [citation] = part["annotations"]
    assert citation["title"] == "Mali"
    assert set(made) == OPEN_RESPONSES_FIELDS
    assert made["tools"] == [{"type": "web_search"}]
    assert made["usage"]["num_searches"] == 1
    stored = await stage.client.get(f"/v1/responses/{made['id']}")
    assert stored.json() == made


async def test_without_the_tool_searches_are_lines_of_the_reasoning(stage: Stage) -> None:
    made = await create(stage)
    assert [item["type"] for item in made["output"]] == ["reasoning", "reasoning", "message"]
    texts = [item["content"][0]["text"] for item in made["output"][:2]]
    assert texts == ["I need Mali.\n[search] currency of Mali\n", "Found it."]
    assert (made["tools"], made["tool_choice"], made["usage"]["num_searches"]) == ([], "auto", 1)
    assert (await stage.client.get(f"/v1/responses/{made['id']}")).json() == made
    told = [json.loads(data) for data in sse_payloads((await post(stage, stream=True)).text)]
    assert not any("web_search" in event["type"] for event in told)
    assert told[-1]["response"]["output"][0]["content"] == made["output"][0]["content"]
    said = "".join(event["delta"] for event in told if event["type"] == "response.reasoning_text.delta")
    assert said == "".join(texts)
    assert await events(stage, told[0]["response"]["id"]) == told


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_of_the_clients_are_taken_repeated_and_told(stage: Stage, stream: bool) -> None:
    choice = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]}
    response = await post(stage, tools=TOOLS, tool_choice=choice, stream=stream)
    assert response.status_code == 200, response.text
    assert response.headers[IGNORED_HEADER] == "tools"
    made = json.loads(sse_payloads(response.text)[-1])["response"] if stream else response.json()
    assert (made["status"], made["tool_choice"]) == ("completed", choice)
    filled = [{"description": None, "parameters": None, "strict": None, **tool} for tool in TOOLS[:2]]
    assert made["tools"] == [*filled, *TOOLS[2:]]
    assert [item["type"] for item in made["output"]] == ["reasoning", "reasoning", "message"]
    metrics = (await stage.client.get("/metrics")).text
    assert 'searchr1_ignored_fields_total{field="tools"} 1.0' in metrics


async def test_a_demanded_search_is_told_to_be_the_models_choice(stage: Stage) -> None:
    response = await post(stage, tools=[SEARCH], tool_choice={"type": "web_search"})
    assert response.headers[IGNORED_HEADER] == "tool_choice"
    assert response.json()["tool_choice"] == {"type": "web_search"}
    assert [item["type"] for item in response.json()["output"]][1] == "web_search_call"


async def test_a_stream_ends_in_the_stored_response(stage: Stage) -> None:
    streamed = await post(stage, stream=True, tools=[SEARCH])
    assert streamed.headers["content-type"].startswith("text/event-stream")
    told = [json.loads(data) for data in sse_payloads(streamed.text)]
    for event in told:
        checked(STREAM_EVENT, event)
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    named = [line.removeprefix("event: ") for line in streamed.text.splitlines() if line.startswith("event: ")]
    assert named == [event["type"] for event in told]
    assert "id: " not in streamed.text
    response_id = told[0]["response"]["id"]
    stored = await stage.client.get(f"/v1/responses/{response_id}")
    assert told[-1]["response"] == stored.json()
    assert await events(stage, response_id) == told
    assert await events(stage, response_id, starting_after=4) == told[5:]
    assert await events(stage, response_id, starting_after=10_000) == []


async def test_a_broken_stream_is_taken_up_where_it_broke(held: Stage) -> None:
    request = held.client.build_request(
        "POST", "/v1/responses", json={"model": MODEL, "input": QUESTION, "stream": True}
    )
    response = await held.client.send(request, stream=True)
    lines = response.aiter_lines()
    first = json.loads([line async for line in _take(lines, 2)][1].removeprefix("data: "))
    await response.aclose()
    resuming = asyncio.create_task(events(held, first["response"]["id"], starting_after=1))
    await asyncio.sleep(0.05)
    assert held.engine.hold is not None
    held.engine.hold.set()
    resumed = await resuming
    assert resumed[0]["sequence_number"] == 2
    assert types_of(resumed)[-1] == "completed"


async def _take(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    for _ in range(count):
        yield await anext(lines)


async def test_the_background(held: Stage) -> None:
    made = await create(held, background=True)
    assert (made["status"], made["background"]) == ("in_progress", True)
    again = (await held.client.get(f"/v1/responses/{made['id']}")).json()
    assert again["status"] == "in_progress"
    assert held.engine.hold is not None
    held.engine.hold.set()
    told = await events(held, made["id"])
    assert told[-1]["response"]["status"] == "completed"
    # It has ended: to cancel it changes nothing.
    cancelled = await held.client.post(f"/v1/responses/{made['id']}/cancel")
    assert cancelled.json() == told[-1]["response"]


async def test_cancel_frees_the_engine(held: Stage) -> None:
    made = await create(held, background=True)
    following = asyncio.create_task(events(held, made["id"]))
    await eventually(lambda: held.engine.num_open == 1)
    cancelled = (await held.client.post(f"/v1/responses/{made['id']}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    assert held.engine.num_open == 0
    assert (await following)[-1]["response"] == cancelled
    checked(RESPONSE, cancelled)


async def test_a_response_in_the_foreground_is_not_cancelled(stage: Stage) -> None:
    made = await create(stage)
    refused = await stage.client.post(f"/v1/responses/{made['id']}/cancel")
    assert refused.status_code == 400
    assert "synchronous" in refused.json()["error"]["message"]


async def test_a_stream_in_the_background_goes_on_without_its_reader(held: Stage) -> None:
    body = {"model": MODEL, "input": QUESTION, "stream": True, "background": True}
    response = await held.client.send(held.client.build_request("POST", "/v1/responses", json=body), stream=True)
    first = json.loads([line async for line in _take(response.aiter_lines(), 2)][1].removeprefix("data: "))
    await response.aclose()
    assert held.engine.hold is not None
    held.engine.hold.set()
    assert (await events(held, first["response"]["id"]))[-1]["response"]["status"] == "completed"


async def test_what_is_not_stored_is_not_found(stage: Stage) -> None:
    made = await create(stage, store=False)
    assert made["store"] is False
    gone = await stage.client.get(f"/v1/responses/{made['id']}")
    assert gone.status_code == 404
    assert gone.json()["error"]["message"] == f"Response with id {made['id']!r} not found."
    for body in ({"background": True, "store": False}, {"previous_response_id": made["id"]}):
        assert (await post(stage, **body)).status_code == 400


async def test_a_server_that_stores_nothing_says_so() -> None:
    async with running_stage(store_runs=False) as stage:
        assert (await create(stage))["store"] is False
        refused = await post(stage, background=True)
        assert refused.json()["error"]["param"] == "background"


async def test_a_deleted_response_is_gone(stage: Stage) -> None:
    made = await create(stage)
    path = f"/v1/responses/{made['id']}"
    deleted = await stage.client.delete(path)
    assert deleted.json() == {"id": made["id"], "object": "response", "deleted": True}
    for response in (
        await stage.client.get(path),
        await stage.client.get(f"{path}/input_items"),
        await stage.client.post(f"{path}/cancel"),
        await stage.client.delete(path),
    ):
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "invalid_request_error"


async def test_responses_and_native_runs_do_not_find_each_other(stage: Stage) -> None:
    made = await create(stage)
    assert (await stage.client.get(f"/v1/research/{made['id']}")).status_code == 404
    run = (await stage.client.post("/v1/research", json={"question": QUESTION})).json()
    assert (await stage.client.get(f"/v1/responses/{run['id']}")).status_code == 404
    assert (await post(stage, previous_response_id=run["id"])).status_code == 400


async def test_a_response_is_found_by_its_own_tenant_alone() -> None:
    async with running_stage(tenant_keys={"acme": ("a1",), "other": ("b1",)}) as stage:
        keys = {name: {"Authorization": f"Bearer {name}"} for name in ("a1", "b1")}
        body = {"model": MODEL, "input": QUESTION}
        made = (await stage.client.post("/v1/responses", json=body, headers=keys["a1"])).json()
        path = f"/v1/responses/{made['id']}"
        assert (await stage.client.get(path, headers=keys["b1"])).status_code == 404
        assert (await stage.client.get(path)).status_code == 401
        stolen = {**body, "input": [{"type": "item_reference", "id": made["output"][-1]["id"]}, *_user("And?")]}
        assert (await stage.client.post("/v1/responses", json=stolen, headers=keys["b1"])).status_code == 404


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


async def test_a_follow_up_is_asked_after_what_came_before(stage: Stage) -> None:
    first = await create(stage, instructions="Be brief.")
    assert "Be brief." in prompt(stage)
    second = await create(stage, input="And Chad?", previous_response_id=first["id"])
    asked = prompt(stage)
    assert asked.index(QUESTION) < asked.index(ANSWER) < asked.index("And Chad?")
    assert "Be brief." not in asked
    await stage.client.delete(f"/v1/responses/{first['id']}")
    await create(stage, input="And Niger?", previous_response_id=second["id"])
    asked = prompt(stage)
    assert all(text in asked for text in (QUESTION, "And Chad?", "And Niger?"))


async def test_a_running_response_has_no_follow_up(held: Stage) -> None:
    made = await create(held, background=True)
    refused = await post(held, previous_response_id=made["id"])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "previous_response_id"


async def test_an_answer_that_is_not_there_yet_is_no_part_of_a_question(held: Stage) -> None:
    made = await create(held, background=True)
    reference = {"type": "item_reference", "id": f"msg_{made['id'].removeprefix('resp_')}"}
    refused = await post(held, input=[*_user(QUESTION), reference, *_user("And Chad?")])
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "input"
    assert "in progress" in refused.json()["error"]["message"]


async def test_output_that_is_sent_back_counts_by_its_answer(stage: Stage) -> None:
    made = await create(stage, tools=[SEARCH])
    sent_back = [*_user(QUESTION), *made["output"], *_user("And Chad?")]
    by_value = await create(stage, input=sent_back, include=["reasoning.encrypted_content"])
    asked = prompt(stage)
    assert asked.index(ANSWER) < asked.index("And Chad?")
    assert "I need Mali" not in asked
    references = [{"type": "item_reference", "id": item["id"]} for item in made["output"]]
    await create(stage, input=[*_user(QUESTION), *references, *_user("And Chad?")])
    assert prompt(stage) == asked
    listed = (await stage.client.get(f"/v1/responses/{by_value['id']}/input_items")).json()
    assert [item["role"] for item in listed["data"]] == ["user", "assistant", "user"]


ITEMS: list[dict[str, Any]] = [
    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
    {"type": "custom_tool_call", "call_id": "2", "name": "f", "input": "x"},
    {"type": "mcp_call", "id": "m", "name": "f", "arguments": "{}", "server_label": "x"},
    {"type": "mcp_list_tools", "id": "m", "server_label": "x", "tools": []},
    {"type": "mcp_approval_request", "id": "m", "name": "f", "arguments": "{}", "server_label": "x"},
    {"type": "mcp_approval_response", "approval_request_id": "m", "approve": True},
    {"type": "web_search_call", "id": "ws_x", "status": "completed", "action": {"type": "search", "query": "q"}},
    {"type": "file_search_call", "id": "fs_x", "status": "completed", "queries": []},
    {"type": "computer_call", "id": "c", "call_id": "3", "action": {}, "status": "completed"},
    {"type": "computer_call_output", "call_id": "3", "output": {"type": "computer_screenshot"}},
    {"type": "code_interpreter_call", "id": "ci", "code": "1", "container_id": "x", "status": "completed"},
    {"type": "image_generation_call", "id": "ig", "result": "AA", "status": "completed"},
    {"type": "local_shell_call", "id": "ls", "call_id": "4", "action": {}, "status": "completed"},
    {"type": "local_shell_call_output", "id": "ls", "output": "x"},
    {"type": "shell_call", "call_id": "5", "action": {}},
    {"type": "apply_patch_call_output", "call_id": "6", "status": "completed"},
    {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "secret"},
]


async def test_a_history_may_hold_items_of_every_type(stage: Stage) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA"}
    history = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where is this?"}, image]},
        *ITEMS,
        {"type": "function_call_output", "call_id": "1", "output": "The harbor."},
        {"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "Of Mopti."}]},
        {"type": "message", "role": "assistant", "phase": "commentary", "content": [{"type": "text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "I can't tell."}]},
        {"role": "assistant", "content": None},
        {"role": "human", "content": ["Mopti?"]},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": "Mali"},
    ]
    made = await create(stage, input=[*history, *_user("Its currency?")])
    assert (
        "Given this conversation:\nuser: Where is this? [image]\ntool: The harbor.\ntool: Of Mopti.\nassistant: Hm.\n"
        "assistant: I can't tell.\nuser: Mopti?\nassistant: Mali\n\nIts currency?\n"
    ) in prompt(stage)
    listed = (await stage.client.get(f"/v1/responses/{made['id']}/input_items")).json()
    checked(ITEM_LIST, listed)
    assert len(listed["data"]) == 7


async def test_what_follows_the_question_is_left_out_and_told(stage: Stage) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "1", "output": "12:00"}
    response = await post(stage, input=[*_user(QUESTION), call, output])
    assert response.status_code == 200, response.text
    assert response.headers[IGNORED_HEADER] == "input"
    assert "12:00" not in prompt(stage)


async def test_a_compacted_conversation_is_read_as_the_conversation(stage: Stage) -> None:
    made = await create(stage, instructions="Be brief.")
    items = [{"role": "system", "content": "In French."}, *_user("And Chad?"), {"role": "assistant", "content": "é"}]
    body = {"model": MODEL, "previous_response_id": made["id"], "input": [*items, *ITEMS], "instructions": "x"}
    response = await stage.client.post("/v1/responses/compact", json=body)
    assert response.status_code == 200, response.text
    compacted = response.json()
    CompactedResponse.model_validate(compacted)
    assert compacted["object"] == "response.compaction"
    await create(stage, input=[*compacted["output"], *_user("And Niger?")])
    assert (
        "Question: Follow these instructions:\nIn French.\n\nGiven this conversation:\n"
        f"user: {QUESTION}\nassistant: {ANSWER}\nuser: And Chad?\nassistant: é\n\nAnd Niger?\n"
    ) in prompt(stage)
    again = {"model": MODEL, "input": [*compacted["output"], *_user("And Niger?")]}
    once_more = (await stage.client.post("/v1/responses/compact", json=again)).json()
    await create(stage, input=[*once_more["output"], *_user("And Togo?")])
    assert "user: And Niger?\n\nAnd Togo?" in prompt(stage)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "x"}, 400, "model"),
        ({"model": MODEL}, 400, "input"),
        ({"model": MODEL, "input": []}, 400, "input"),
        ({"model": MODEL, "input": [{"type": "reasoning"}]}, 400, "input"),
        ({"model": MODEL, "input": "\ud800"}, 400, "input.content"),
        ({"model": MODEL, "previous_response_id": "resp_none"}, 400, "previous_response_id"),
        ({"model": "gpt-9", "input": "x"}, 404, "model"),
    ],
)
async def test_what_can_not_be_compacted(stage: Stage, body: dict[str, Any], status: int, param: str) -> None:
    headers = {"content-type": "application/json"}
    refused = await stage.client.post("/v1/responses/compact", content=json.dumps(body), headers=headers)
    assert (refused.status_code, refused.json()["error"]["param"]) == (status, param)


async def test_input_items_page_by_page(stage: Stage) -> None:
    parts = [{"type": "input_text", "text": "And "}, {"type": "input_text", "text": "Chad?"}]
    conversation = [
        {"type": "message", "role": "system", "content": "Be brief."},
        *_user(QUESTION),
        {"role": "assistant", "content": [{"type": "output_text", "text": ANSWER, "annotations": []}]},
        {"role": "user", "content": parts},
    ]
    made = await create(stage, input=conversation)
    path = f"/v1/responses/{made['id']}/input_items"
    whole = (await stage.client.get(path, params={"order": "asc"})).json()
    checked(ITEM_LIST, whole)
    texts = [item["content"][0]["text"] for item in whole["data"]]
    assert texts == ["Be brief.", QUESTION, ANSWER, "And Chad?"]
    first = (await stage.client.get(path, params={"limit": 3})).json()
    assert [item["content"][0]["text"] for item in first["data"]] == texts[:0:-1]
    assert first["has_more"] is True
    rest = (await stage.client.get(path, params={"limit": 3, "after": first["last_id"]})).json()
    assert [item["id"] for item in rest["data"]] == [whole["data"][0]["id"]]
    assert rest["has_more"] is False
    assert (await stage.client.get(path, params={"after": "msg_x"})).status_code == 400


async def test_options_reach_the_run(stage: Stage) -> None:
    tools = [{"type": "web_search_preview", "search_context_size": "low", "user_location": {"type": "approximate"}}]
    made = await create(
        stage,
        temperature=0.5,
        top_p=0.9,
        seed=7,
        max_output_tokens=10**9,
        max_tool_calls=10**6,
        tools=tools,
        metadata={"a": "b"},
        user="u",
        reasoning={"effort": "high", "summary": "auto"},
        text={"format": {"type": "text"}, "verbosity": "low"},
        truncation="auto",
        conversation=None,
        top_logprobs=0,
        service_tier="auto",
        top_k=20,
        presence_penalty=0.5,
        stop="West",
    )
    params = stage.engine.params[-1]
    assert (params.temperature, params.top_p, params.seed) == (0.5, 0.9, 7)
    assert params.shaping == Shaping(top_k=20, presence_penalty=0.5)
    assert made["presence_penalty"] == 0.5
    assert made["metadata"] == {"a": "b"}
    assert made["tools"] == tools
    assert made["output"][0]["summary"][0]["text"] == made["output"][0]["content"][0]["text"]
    assert made["max_output_tokens"] == 10**9


@pytest.mark.parametrize("body", [{"tool_choice": "none"}, {"max_tool_calls": 0}])
async def test_searching_can_be_switched_off(stage: Stage, body: dict[str, object]) -> None:
    await create(stage, **body)
    assert stage.retriever.queries == []


async def test_sources_when_included() -> None:
    passage = replace(MALI, url="https://mali.example")
    async with running_stage(retriever=StageRetriever(Found((passage,)))) as linked:
        include = ["web_search_call.action.sources", "web_search_call.results"]
        made = await create(linked, include=include)
        search = made["output"][1]
        assert search["action"]["sources"] == [{"type": "url", "url": "https://mali.example"}]
        assert search["results"][0]["title"] == "Mali"
        plain = await create(linked, tools=[SEARCH])
        path = f"/v1/responses/{plain['id']}"
        assert "sources" not in plain["output"][1]["action"]
        for name in ("include", "include[]"):
            later = (await linked.client.get(path, params={name: include})).json()
            assert "sources" in later["output"][1]["action"]
            assert "results" in later["output"][1]


async def test_a_token_limit_makes_it_incomplete() -> None:
    async with running_stage(engine=StageEngine(completions=["<think> on and on and on"])) as stage:
        made = await create(stage, max_output_tokens=2)
        assert made["status"] == "incomplete"
        assert made["incomplete_details"] == {"reason": "max_output_tokens"}


async def test_a_broken_engine() -> None:
    async with running_stage(engine=StageEngine(error=EngineError("it broke"))) as stage:
        refused = await post(stage)
        assert refused.status_code == 502
        assert refused.json()["error"]["type"] == "server_error"
        assert (await post(stage, stream=True)).status_code == 502
        made = await create(stage, background=True)
        failed = (await events(stage, made["id"]))[-1]["response"]
        assert failed["status"] == "failed"
        assert failed["error"]["code"] == "server_error"
        assert (await stage.client.get(f"/v1/responses/{made['id']}")).json() == failed


async def test_a_second_message_while_the_server_is_full() -> None:
    hold = asyncio.Event()
    async with running_stage(engine=StageEngine(hold=hold), max_concurrent_runs=1) as held:
        await create(held, background=True)
        for stream in (False, True):
            shed = await post(held, stream=stream)
            assert shed.status_code == 503
            assert "retry-after" in shed.headers
        hold.set()


async def test_a_position_is_for_streams(stage: Stage) -> None:
    made = await create(stage)
    refused = await stage.client.get(f"/v1/responses/{made['id']}", params={"starting_after": 3})
    assert refused.json()["error"]["param"] == "starting_after"


async def test_an_answer_that_is_never_closed_is_none() -> None:
    engine = StageEngine(completions=[SEARCH_TURN, ANSWER_TURN.replace("</answer>", "")])
    async with running_stage(engine=engine) as stage:
        told = [json.loads(data) for data in sse_payloads((await post(stage, stream=True)).text)]
        assert not any("output_text" in event["type"] for event in told)
        assert told[-1]["type"] == "response.incomplete"
