"""The request of a chat completion: its options, its refusals, and its messages as one question."""

from typing import Any

import pytest

from searchr1.engines.base import UNSHAPED, Shaping
from searchr1.gateway.chat.request import ChatRequest
from searchr1.gateway.chat.unsupported import REFUSALS
from searchr1.gateway.openai.ignored import IGNORED_HEADER
from searchr1.retrieval.base import SearchOutcome
from searchr1.settings import Settings
from tests.gateway.conftest import MODEL, Stage, StageRetriever, running_stage

QUESTION = {"role": "user", "content": "Which currency is used in Mali?"}
ASK: dict[str, Any] = {"model": MODEL, "messages": [QUESTION]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

REFUSED: list[tuple[str, Any]] = [
    ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
    ("response_format", "json"),
    ("logprobs", True),
    ("top_logprobs", 5),
    ("logit_bias", {"42": 100}),
    ("modalities", ["text", "audio"]),
    ("audio", {"voice": "ash", "format": "mp3"}),
    ("moderation", {"model": "omni"}),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
async def test_what_would_be_missed_is_refused_by_name(stage: Stage, name: str, value: Any) -> None:
    response = await stage.client.post("/v1/chat/completions", json={**ASK, name: value})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    assert name in error["message"]
    assert stage.engine.prompts == []


def test_every_refusal_is_tried() -> None:
    assert {name for name, _ in REFUSED} == set(REFUSALS)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"functions": [{"name": "f"}], "function_call": {"name": "f"}}, "function_call"),
        ({"tools": [{"type": "web_search", "filters": {"allowed_domains": ["a.example"]}}]}, "tools.0.filters"),
        ({"tools": "f"}, "tools"),
        ({"n": 5}, "n"),
        ({"top_k": -2}, "top_k"),
        ({"search_top_k": 11}, "search_top_k"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ],
)
async def test_what_can_not_be_done_is_refused_before_anything_runs(
    stage: Stage, given: dict[str, Any], param: str
) -> None:
    response = await stage.client.post("/v1/chat/completions", json={**ASK, **given})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert stage.engine.prompts == []


async def test_values_that_change_nothing_are_taken(stage: Stage) -> None:
    harmless = {
        "stop": [""],
        "tools": [],
        "tool_choice": "auto",
        "functions": None,
        "function_call": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "top_logprobs": 0,
        "logit_bias": {},
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "top_k": -1,
        "min_p": 0,
        "repetition_penalty": 1.0,
        "seed": -1,
        "max_tokens": -1,
        "max_completion_tokens": 0,
        "modalities": ["text"],
        "audio": None,
        "moderation": None,
        "stream": None,
        "stream_options": None,
        "n": None,
    }
    ignored = {
        "user": "someone",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "x"},
        "reasoning_effort": "high",
        "verbosity": "low",
        "safety_identifier": "x",
        "prompt_cache_key": "x",
        "a_field_of_tomorrow": 1,
    }
    response = await stage.client.post("/v1/chat/completions", json={**ASK, **harmless, **ignored})
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "West African CFA franc"
    assert IGNORED_HEADER not in response.headers
    assert stage.engine.params[0].shaping == UNSHAPED


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("given", "ignored"),
    [
        ({"tools": [TOOL]}, "tools"),
        ({"tools": [TOOL, {"type": "web_search"}], "tool_choice": {"type": "web_search"}}, "tools, tool_choice"),
        ({"functions": [{"name": "f"}], "function_call": "auto"}, "functions"),
        ({"messages": [QUESTION, {"role": "assistant", "content": "The West"}]}, "messages"),
        ({"tools": [{"type": "web_search"}]}, None),
    ],
)
async def test_what_changes_nothing_is_told_and_counted(
    stage: Stage, given: dict[str, Any], ignored: str | None, stream: bool
) -> None:
    response = await stage.client.post("/v1/chat/completions", json={**ASK, **given, "stream": stream})
    assert response.status_code == 200
    assert "West African CFA franc" in response.text
    assert "tool_calls" not in response.text
    assert response.headers.get(IGNORED_HEADER) == ignored
    metrics = (await stage.client.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if line.startswith("searchr1_ignored_fields_total")]
    assert counted == [
        f'searchr1_ignored_fields_total{{field="{name}"}} 1.0' for name in (ignored or "").split(", ") if name
    ]


async def test_sampling_reaches_the_engine_of_every_choice(stage: Stage) -> None:
    sampling = {"top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "frequency_penalty": 0.5, "presence_penalty": -1}
    response = await stage.client.post(
        "/v1/chat/completions", json={**ASK, **sampling, "top_p": 0, "temperature": 1, "n": 2}
    )
    assert response.status_code == 200, response.text
    shaping = Shaping(**sampling)  # type: ignore[arg-type]
    assert len(stage.engine.params) == 4
    assert {(params.shaping, params.temperature) for params in stage.engine.params} == {(shaping, 0.0)}


async def test_plain_completions_are_not_here_and_the_error_says_where(stage: Stage) -> None:
    response = await stage.client.post("/v1/completions", json={"model": MODEL, "prompt": "Mali?"})
    assert response.status_code == 404
    assert "/v1/chat/completions" in response.json()["error"]["message"]


class CountingRetriever(StageRetriever):
    """Keeps how many passages were asked for."""

    ks: list[int]

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        self.ks = [*getattr(self, "ks", []), k]
        return await super().search(query, k, deadline_s)


@pytest.mark.parametrize(
    ("ask", "k"),
    [
        ({}, 3),
        ({"web_search_options": {}}, 3),
        ({"web_search_options": {"search_context_size": "low"}}, 1),
        ({"web_search_options": {"search_context_size": "medium"}}, 3),
        ({"web_search_options": {"search_context_size": "high"}}, 5),
        ({"web_search_options": {"search_context_size": "high"}, "search_top_k": 2}, 2),
        ({"tools": [{"type": "web_search", "search_context_size": "low"}]}, 1),
        ({"tools": [{"type": "web_search", "search_context_size": "low"}], "web_search_options": {}}, 1),
        ({"top_k": 40}, 3),
        ({"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bamako"}}}}, 3),
        ({"web_search_options": {"filters": {"allowed_domains": []}}}, 3),
    ],
)
async def test_the_search_context_size_is_passages_within_the_operators_bound(ask: dict[str, Any], k: int) -> None:
    retriever = CountingRetriever()
    async with running_stage(retriever=retriever, max_top_k=5) as stage:
        response = await stage.client.post("/v1/chat/completions", json={**ASK, **ask})
    assert response.status_code == 200, response.text
    assert retriever.ks == [k]


async def test_domains_that_can_not_be_held_to_are_refused(stage: Stage) -> None:
    options = {"filters": {"allowed_domains": ["example.org"]}}
    response = await stage.client.post("/v1/chat/completions", json={**ASK, "web_search_options": options})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == ("web_search_options.filters", "unsupported_parameter")


@pytest.mark.parametrize(("given", "cache"), [(None, "default"), (True, "default"), (False, "only")])
def test_without_external_web_access_the_cache_alone_answers(given: bool | None, cache: str) -> None:
    body = ChatRequest.model_validate({**ASK, "web_search_options": {"external_web_access": given}})
    assert body.run_options(Settings(model="m", retriever="index:none")).cache == cache


def test_the_newer_name_of_the_token_limit_goes_first_and_both_are_cut() -> None:
    settings = Settings(model="m", retriever="index:none", max_run_tokens=100)
    for given, taken in (
        ({"max_tokens": 7}, 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_completion_tokens": 1_000_000}, 100),
        ({}, None),
    ):
        assert ChatRequest.model_validate({**ASK, **given}).run_options(settings).max_tokens == taken


BAD_MESSAGES: list[tuple[str, list[dict[str, Any]], str, str]] = [
    ("blank", [{"role": "user", "content": " \n"}], "messages", "invalid_value"),
    ("no content", [{"role": "user"}], "messages", "invalid_value"),
    ("instructions alone", [{"role": "system", "content": "Be brief."}], "messages", "invalid_value"),
    ("assistant alone", [{"role": "assistant", "content": "It is"}], "messages", "invalid_value"),
    ("unknown role", [{"role": "wizard", "content": "It is"}], "messages.0.role", "invalid_value"),
    ("too long", [QUESTION, {"role": "user", "content": "x" * 600}], "messages", "string_too_long"),
    (
        "image",
        [
            {
                "role": "user",
                "content": [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": "x"}}],
            }
        ],
        "messages.0.content.1",
        "unsupported_content",
    ),
    ("textless text", [{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0", "unsupported_content"),
    ("too many", [QUESTION] * 2049, "messages", "too_long"),
]


@pytest.mark.parametrize(("messages", "param", "code"), [m[1:] for m in BAD_MESSAGES], ids=[m[0] for m in BAD_MESSAGES])
async def test_messages_that_make_no_question_are_refused(
    messages: list[dict[str, Any]], param: str, code: str
) -> None:
    async with running_stage(max_question_chars=500) as stage:
        response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
        assert stage.engine.prompts == []
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["code"]) == (param, code)


async def test_messages_are_folded_into_the_trained_question(stage: Stage) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "Human", "content": [{"type": "text", "text": "Where is "}, {"type": "text", "text": "Timbuktu?"}]},
        {"role": "assistant", "content": None, "tool_calls": [TOOL]},
        {"role": "tool", "tool_call_id": "1", "content": "a city of Mali"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Mali"}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
        {"role": "assistant", "content": None, "refusal": "I see no images."},
        {"role": "assistant", "content": None, "audio": {"id": "x"}},
        {"role": "user", "content": "And its currency?", "name": "someone"},
        {"role": "developer", "content": "Answer in French."},
    ]
    response = await stage.client.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
    assert response.status_code == 200, response.text
    prompt = stage.services.default.tokenizer.decode(stage.engine.prompts[0])
    assert (
        "Question: Follow these instructions:\nBe brief.\nAnswer in French.\n\n"
        "Given this conversation:\nuser: Where is Timbuktu?\ntool: a city of Mali\nassistant: Mali\nuser: [image]\n"
        "assistant: I see no images.\nassistant: [audio]\n\n"
        "And its currency?\n"
    ) in prompt
