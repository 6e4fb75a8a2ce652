"""Request bodies as popular programs send them, field by field: each gets the answer."""

from typing import Any

import pytest

from searchr1.gateway.openai.ignored import IGNORED_HEADER
from tests.gateway.conftest import MODEL, running_stage

ASKED = "Which currency is used in Mali?"
QUESTION = {"role": "user", "content": ASKED}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "auto"}}
CAT = {"type": "text", "text": "A cat."}


def _function(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": f"{name}. " * 70, "parameters": parameters}}


BODIES: dict[str, dict[str, Any]] = {
    "lm-evaluation-harness, local-chat-completions": {
        "messages": [{"role": "user", "content": ASKED, "type": "text"}],
        "model": MODEL,
        "max_tokens": 256,
        "temperature": 0,
        "stop": ["\n\n", "<|endoftext|>"],
        "seed": 1234,
    },
    "lm-evaluation-harness, no stop of the task": {
        "messages": [{"role": "user", "content": ASKED, "type": "text"}],
        "model": MODEL,
        "max_tokens": 256,
        "temperature": 0,
        "stop": [""],
        "seed": 1234,
        "do_sample": False,
    },
    "vllm bench serve --top-k 20": {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]}],
        "max_completion_tokens": 128,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0.0,
        "top_k": 20,
        "top_p": 0.95,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
        "logprobs": None,
    },
    "lm-evaluation-harness, few-shot, sampled": {
        "messages": [
            {"role": "system", "content": "Answer briefly."},
            {"role": "user", "content": "Which currency is used in Niger?"},
            {"role": "assistant", "content": "West African CFA franc"},
            QUESTION,
        ],
        "model": MODEL,
        "max_tokens": 128,
        "temperature": 0.7,
        "stop": ["\n\n"],
        "seed": 1234,
        "top_p": 0.9,
        "top_k": 20,
    },
    "guidellm": {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]}],
        "max_completion_tokens": 64,
        "stop": None,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "aiperf": {
        "messages": [{"role": "user", "name": "", "content": ASKED}],
        "model": MODEL,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 100,
        "min_tokens": 100,
    },
    "aiperf, a later turn": {
        "messages": [
            {"role": "user", "content": "Which currency is used in Niger?"},
            {"role": "assistant", "content": "Found it.West African CFA franc"},
            QUESTION,
        ],
        "model": MODEL,
        "stream": True,
        "max_completion_tokens": 200,
        "ignore_eos": True,
        "min_tokens": 20,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "LibreChat": {
        "model": MODEL,
        "user": "6650c0ffee",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [QUESTION],
    },
    "LibreChat, parameters, an image earlier": {
        "model": MODEL,
        "temperature": 1,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "stop": ["\n\n"],
        "user": "6650c0ffee",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 256,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]},
            {"role": "assistant", "content": "A cat."},
            QUESTION,
        ],
    },
    "LibreChat agent": {
        "model": MODEL,
        "user": "6650c0ffee",
        "stream": True,
        "tools": [_function("clock", q={"type": "string"})],
        "stream_options": {"include_usage": True},
        "messages": [QUESTION],
    },
    "Open WebUI, native function calling": {
        "stream": True,
        "model": MODEL,
        "messages": [QUESTION],
        "tools": [_function(f"tool_{i}", query={"type": "string", "description": "x" * 60}) for i in range(36)],
        "top_k": 40,
        "repeat_penalty": 1.1,
        "max_tokens": 128,
        "stop": ["</s>"],
    },
    "CrewAI": {
        "model": MODEL,
        "messages": [{"role": "system", "content": "You are a researcher."}, QUESTION],
        "stop": ["\nObservation:"],
    },
    "smolagents ToolCallingAgent": {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": ASKED}]}],
        "stop": ["Observation:", "Calling tools:"],
        "tools": [_function("final_answer", answer={"type": "any"})],
        "tool_choice": "auto",
    },
    "LobeHub": {
        "model": MODEL,
        "messages": [QUESTION],
        "stream": True,
        "frequency_penalty": 0,
        "presence_penalty": 0.2,
        "temperature": 1,
        "top_p": 1,
        "tools": [{"type": "web_search"}],
    },
    "LobeHub, reasoning, plugins and images": {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, IMAGE]},
            {
                "role": "assistant",
                "content": "",
                "reasoning_content": "I look.",
                "tool_calls": [{"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "1", "name": "look", "content": "a cat"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "So.", "signature": "s"}, CAT]},
            QUESTION,
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 1,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "user": "u",
        "enabledSearch": True,
        "enabledContextCaching": True,
        "reasoning_effort": "medium",
        "verbosity": "low",
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [_function("lobe-web-browsing____search____builtin", query={"type": "string"})],
    },
    "LangChain agent": {
        "model": MODEL,
        "messages": [QUESTION],
        "tools": [_function("search", query={"type": "string"})],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
    },
    "SillyTavern": {
        "model": MODEL,
        "messages": [QUESTION, {"role": "assistant", "content": "The"}],
        "max_tokens": 0,
        "seed": -1,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "frequency_penalty": 0.3,
        "stop": ["\nUser:"],
        "logit_bias": {},
        "n": 1,
    },
    "Jan": {
        "model": MODEL,
        "messages": [QUESTION],
        "stream": True,
        "max_tokens": 2048,
        "stop": [],
        "frequency_penalty": 0.7,
        "presence_penalty": 0.7,
        "temperature": 0.7,
        "top_p": 0.95,
        "cache_prompt": True,
    },
    "LM Studio's form": {"model": MODEL, "messages": [QUESTION], "max_tokens": -1, "temperature": 0.7, "stream": False},
    "an agent after its call": {
        "model": MODEL,
        "messages": [
            QUESTION,
            {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
            {"role": "tool", "tool_call_id": "1", "name": "clock", "content": "12:00"},
        ],
        "tools": [_function("clock")],
        "tool_choice": "none",
    },
}
TELLS = {
    "Open WebUI, native function calling": "tools",
    "smolagents ToolCallingAgent": "tools",
    "LangChain agent": "tools",
    "LibreChat agent": "tools",
    "LobeHub, reasoning, plugins and images": "tools",
    "SillyTavern": "messages",
    "an agent after its call": "tools, messages",
}


@pytest.mark.parametrize("client", BODIES)
async def test_its_request_is_answered(client: str) -> None:
    async with running_stage() as stage:
        response = await stage.client.post("/v1/chat/completions", json=BODIES[client])
    assert response.status_code == 200, response.text
    assert '"content":"West African CFA franc"' in response.text
    assert '"finish_reason":"stop"' in response.text
    assert "[search] currency of Mali" in response.text
    assert response.headers.get(IGNORED_HEADER) == TELLS.get(client)
