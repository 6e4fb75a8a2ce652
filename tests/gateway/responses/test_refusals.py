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
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"input": 5}, "input"),
        ({"input": None}, "input"),
        ({"input": {"role": "user", "content": "x"}}, "input"),
        ({"input": [{"role": "user", "content": "x"}] * 2049}, "input"),
        ({"input": [{"type": "mesage", "role": "user", "content": "x"}]}, "input.0"),
        ({"input": [{"type": "message", "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": 5, "content": "x"}]}, "input.0.role"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0.role"),
        ({"input": [{"type": "item_reference"}]}, "input.0.id"),
        ({"input": [{"type": "item_reference", "id": "x" * 129}]}, "input.0.id"),
        *(
            ({"input": [{"type": "compaction", "encrypted_content": bad}]}, "input.0.encrypted_content")
            for bad in (None, 5, "", "x", "é", "gAAAAABpM0Yj", "e30=", "bnVsbA==", "eyJ2ZXJzaW9uIjoyLCJ0dXJucyI6W119")
        ),
        ({"input": [{"type": 7}]}, "input.0"),
        ({"input": ["x"]}, "input.0"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input.0"),
        ({"input": [{"type": "item_reference", "id": "msg_x"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "fc_x"}]}, "input"),
        ({"input": [{"type": "item_reference", "id": "rs_x_1"}]}, "input"),
        ({"input": "x" * 100_000}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"instructions": "\ud800"}, "input"),
        ({"user": "\ud800"}, "user"),
        ({"tools": [{"type": "web_search", "user_location": {"city": "\ud800"}}]}, "tools"),
        ({"tools": [{"type": "function", "name": "\ud800"}]}, "tools"),
        ({"tools": "f"}, "tools"),
        ({"tool_choice": {"type": "auto", "x": "\ud800"}}, "tool_choice"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"metadata": {str(i): "a" for i in range(17)}}, "metadata"),
        ({"tools": [{"type": "web_search", "filters": {"allowed_domains": ["a.example"]}}]}, "tools.0.filters"),
        ({"tool_choice": "required"}, "tool_choice"),
        (
            {"tool_choice": {"type": "function", "name": "f"}, "tools": [{"type": "function", "name": "f"}]},
            "tool_choice",
        ),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"include": ["everything"]}, "include.0"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {}}}}, "text.format"),
        ({"text": {"format": "json"}}, "text.format"),
        ({"conversation": "conv_x"}, "conversation"),
        ({"prompt": {"id": "x"}}, "prompt"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"include": ["message.output_text.logprobs"]}, "include.0"),
        ({"input": [{"role": "system", "content": "Be brief."}]}, "input"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
        ({"model": "gpt-5"}, "model"),
        ({"temperature": 3}, "temperature"),
        ({"top_k": -2}, "top_k"),
        ({"search_top_k": 11}, "search_top_k"),
        ({"frequency_penalty": 3}, "frequency_penalty"),
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
    assert len(error["message"]) < 400
    assert stage.engine.prompts == []
