"""Request bodies of Responses as popular programs send them, field by field: each gets the answer."""

from typing import Any

import pytest

from searchr1.gateway.openai.ignored import IGNORED_HEADER
from tests.gateway.conftest import MODEL, running_stage

ASKED = "Which currency is used in Mali?"
QUESTION = {"role": "user", "content": ASKED}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "auto"}

BODIES: dict[str, dict[str, Any]] = {
    "guidellm": {"input": [{"role": "user", "content": [{"type": "input_text", "text": ASKED}]}]},
    "aiperf": {"input": [{**QUESTION, "type": "message"}]},
    "LibreChat": {"user": "6650c0ffee", "text": {}, "input": [{**QUESTION, "type": "message"}]},
    "LibreChat, web search and reasoning": {
        "user": "6650c0ffee",
        "tools": [{"type": "web_search"}],
        "text": {},
        "reasoning": {"effort": "high", "summary": "auto"},
        "input": [{**QUESTION, "type": "message"}],
    },
    "LobeHub": {
        "temperature": 1,
        "top_p": 1,
        "store": False,
        "user": "u",
        "prompt_cache_key": "conversation",
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"summary": "auto", "effort": "medium"},
        "text": {"verbosity": "low"},
        "stream_options": {"include_obfuscation": False},
        "input": [
            {"role": "developer", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, IMAGE]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
            {"role": "assistant", "content": "A cat."},
            {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "a cat"},
            QUESTION,
        ],
        "tools": [{"type": "web_search"}, {"type": "function", "name": "look", "parameters": {}}],
    },
}
TELLS = {"LobeHub": "tools"}


@pytest.mark.parametrize("client", BODIES)
async def test_its_request_is_answered(client: str) -> None:
    async with running_stage() as stage:
        response = await stage.client.post("/v1/responses", json={"model": MODEL, "stream": True, **BODIES[client]})
    assert response.status_code == 200, response.text
    assert '"type":"response.completed"' in response.text
    assert '"text":"West African CFA franc"' in response.text
    assert response.headers.get(IGNORED_HEADER) == TELLS.get(client)
