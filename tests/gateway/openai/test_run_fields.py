"""Sampling and bounds of both APIs: values that mean "off", vLLM's bounds, and what the engine is told."""

from typing import Any

import pytest
from pydantic import ValidationError

from searchr1.engines.base import UNSHAPED, Shaping
from searchr1.gateway.access.admission import MAX_SEED, RunOptions
from searchr1.gateway.chat.request import ChatRequest
from searchr1.gateway.errors import ApiError
from searchr1.gateway.openai.run_fields import RunFields
from searchr1.gateway.responses.intake import run_options
from searchr1.gateway.responses.models import ResponsesRequest
from searchr1.settings import Settings

SETTINGS = Settings(model="m", retriever="index:none", max_run_tokens=100, max_top_k=5)


def options(given: dict[str, Any], api: str = "chat") -> RunOptions:
    if api == "chat":
        return ChatRequest.model_validate({"model": "m", "messages": [{"role": "user"}], **given}).run_options(SETTINGS)
    return run_options(ResponsesRequest.model_validate({"model": "m", "input": "q", **given}), SETTINGS)


OFF: list[dict[str, Any]] = [
    {"top_k": -1},
    {"top_k": 0},
    {"top_k": None},
    {"min_p": 0},
    {"min_p": 0.0},
    {"min_p": None},
    {"repetition_penalty": 1},
    {"repetition_penalty": None},
    {"frequency_penalty": 0},
    {"frequency_penalty": None},
    {"presence_penalty": 0.0},
    {"presence_penalty": None},
    {"top_p": None, "temperature": None, "seed": None},
]


@pytest.mark.parametrize("given", OFF)
def test_off_is_off(given: dict[str, Any]) -> None:
    assert RunFields.model_validate(given).shaping == UNSHAPED


@pytest.mark.parametrize(
    ("given", "shaping"),
    [
        ({"top_k": 1}, Shaping(top_k=1)),
        ({"top_k": 20}, Shaping(top_k=20)),
        ({"top_k": 40.0}, Shaping(top_k=40)),
        ({"top_k": 2**31 - 1}, Shaping(top_k=2**31 - 1)),
        ({"min_p": 0.05}, Shaping(min_p=0.05)),
        ({"min_p": 1}, Shaping(min_p=1.0)),
        ({"repetition_penalty": 1.1}, Shaping(repetition_penalty=1.1)),
        ({"frequency_penalty": -2}, Shaping(frequency_penalty=-2.0)),
        ({"presence_penalty": 2}, Shaping(presence_penalty=2.0)),
    ],
)
def test_sampling_goes_to_the_engine_and_not_to_the_searches(given: dict[str, Any], shaping: Shaping) -> None:
    assert RunFields.model_validate(given).shaping == shaping
    for api in ("chat", "responses"):
        assert options(given, api) == options({}, api)


@pytest.mark.parametrize(
    "given",
    [
        *({"top_k": bad} for bad in (-2, 0.5, 2**31, "many")),
        *({"min_p": bad} for bad in (-0.1, 1.1)),
        *({"repetition_penalty": bad} for bad in (0, -1, 1e300, float("nan"), float("inf"))),
        *({name: bad} for name in ("frequency_penalty", "presence_penalty") for bad in (-2.1, 2.1, float("nan"))),
        *({"temperature": bad} for bad in (-0.1, 2.1, float("nan"))),
        *({"top_p": bad} for bad in (-0.1, 1.1)),
        *({"seed": bad} for bad in (2**63, -(2**64), 1.5)),
        *({"search_top_k": bad} for bad in (0, -1)),
        {"max_turns": 0},
        {"deadline_s": 0},
    ],
)
def test_what_the_engine_would_refuse_is_refused_here(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        RunFields.model_validate(given)
    assert refused.value.errors()[0]["loc"] == tuple(given)


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"top_p": 0}, "temperature", 0.0),
        ({"top_p": 0, "temperature": 1.5}, "temperature", 0.0),
        ({"top_p": 0}, "top_p", None),
        ({"top_p": 0.9, "temperature": 1.5}, "temperature", 1.5),
        ({"seed": -1}, "seed", None),
        ({"seed": 0}, "seed", 0),
        ({"seed": MAX_SEED}, "seed", MAX_SEED),
        ({"seed": -2}, "seed", MAX_SEED - 1),
        ({"search_top_k": 4}, "top_k", 4),
        ({"search_top_k": 4, "top_k": 20}, "top_k", 4),
        ({"max_searches": 0}, "max_searches", 0),
        ({"tools": [{"type": "web_search"}], "tool_choice": "none"}, "max_searches", 0),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, "max_searches", None),
        ({"tools": [{"type": "web_search", "search_context_size": "high"}]}, "top_k", 5),
        ({"tools": [{"type": "web_search", "search_context_size": "high"}], "search_top_k": 1}, "top_k", 1),
        ({"tools": [{"type": "web_search", "external_web_access": False}]}, "cache", "only"),
    ],
)
def test_what_a_run_is_told(api: str, given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(options(given, api), name) == value


@pytest.mark.parametrize(
    ("api", "field"), [("chat", "max_tokens"), ("chat", "max_completion_tokens"), ("responses", "max_output_tokens")]
)
@pytest.mark.parametrize(("given", "taken"), [(-1, None), (0, None), (-5, None), (None, None), (1, 1), (10**30, 100)])
def test_a_token_limit_of_nothing_is_none_and_one_too_high_is_cut(
    api: str, field: str, given: int | None, taken: int | None
) -> None:
    assert options({field: given}, api).max_tokens == taken


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_more_passages_than_the_operator_allows_are_refused_by_their_name(api: str) -> None:
    with pytest.raises(ApiError, match="'search_top_k' is 6; this server allows at most 5") as refused:
        options({"search_top_k": 6}, api)
    assert (refused.value.param, refused.value.code) == ("search_top_k", "above_maximum")


@pytest.mark.parametrize(
    ("given", "max_searches"),
    [
        ({}, None),
        ({"max_tool_calls": 2}, 2),
        ({"max_tool_calls": 1000}, 4),
        ({"max_tool_calls": 3, "max_turns": 1}, 1),
        ({"max_tool_calls": 3, "max_searches": 1}, 1),
        ({"tool_choice": "none"}, 0),
        ({"tool_choice": "none", "max_tool_calls": 3}, 0),
    ],
)
def test_searches_of_responses(given: dict[str, Any], max_searches: int | None) -> None:
    assert options(given, "responses").max_searches == max_searches
