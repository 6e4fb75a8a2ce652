"""Responses requests that are refused: each names the field, and nothing runs."""

import json

import pytest

from tests.gateway.conftest import MODEL, Stage

QUESTION = "Which currency is used in Mali?"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"role": "assistant", "content": "x"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input.0"),
        ({"input": [{"type": 7}]}, "input.0"),
        ({"input": ["x"]}, "input.0"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.message.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "fc_x"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "rs_x_1"}]}, "input"),
        ({"input": "x" * 100_000}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"instructions": "\ud800"}, "input"),
        ({"user": "\ud800"}, "user"),
        ({"tools": [{"type": "web_search", "user_location": {"city": "\ud800"}}]}, "tools.0.user_location.city"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"metadata": {str(i): "a" for i in range(17)}}, "metadata"),
        ({"tools": [{"type": "function", "name": "f"}]}, "tools.0.type"),
        ({"tools": [{"type": "web_search", "filters": {"allowed_domains": ["a.example"]}}]}, "tools.0.filters"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"include": ["everything"]}, "include.0"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format.type"),
        ({"conversation": "conv_x"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"input": [{"role": "system", "content": "Be brief."}]}, "input"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"model": "gpt-5"}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_turns": 1000}, "max_turns"),
    ],
)
async def test_what_is_refused(stage: Stage, body: dict[str, object], param: str) -> None:
    sent = json.dumps({"model": MODEL, "input": QUESTION, **body})
    headers = {"content-type": "application/json"}
    refused = await stage.client.post("/v1/responses", content=sent, headers=headers)
    assert refused.status_code in (400, 404), refused.text
    error = refused.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert str(error["param"]).startswith(param), error
    assert stage.engine.prompts == []
