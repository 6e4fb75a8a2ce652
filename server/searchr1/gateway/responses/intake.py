"""A Responses request as a run: its conversation, its options, and what is stored to shape the response again.

What is stored (``RunMeta.request``): ``fields`` (what the response object repeats of the request), ``input`` (the
request's own messages), ``turns`` (the conversation without ``instructions``) and ``include``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import msgspec

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.openai.messages import Conversation, Message, read_conversation, text_of
from searchr1.gateway.responses.input import read_input
from searchr1.gateway.responses.items import Json
from searchr1.gateway.responses.models import CompactRequest, ResponsesRequest
from searchr1.gateway.responses.shape import key_of
from searchr1.gateway.runs.errors import RunNotFoundError
from searchr1.gateway.runs.store.base import RunMeta
from searchr1.loop.conversation import Turn
from searchr1.settings import Settings
from searchr1_client.events import Run

FindRun = Callable[[str], Awaitable[tuple[RunMeta, Run]]]
"""Finds a stored response by its id. Raises ``RunNotFoundError``."""


class _Reasoning(TypedDict):
    summary: str | None


class _Fields(TypedDict):
    background: bool
    reasoning: _Reasoning


class _Item(TypedDict):
    id: str


class _StoredRequest(TypedDict):
    """The part of a stored request that is read again, rather than given back as it is."""

    fields: _Fields
    input: list[_Item]
    turns: list[tuple[str, str]]
    include: list[str]


def is_stored_request(request: Mapping[str, Any]) -> bool:
    """Tell whether ``request`` is one that ``stored_request`` made, in this release or another that wrote as much."""
    try:
        msgspec.convert(request, _StoredRequest)
    except msgspec.ValidationError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's conversation, and the request's own messages of it."""

    conversation: Conversation
    """Without ``instructions``."""
    messages: list[Message]


def run_options(body: ResponsesRequest, settings: Settings) -> RunOptions:
    """Return the request's options in the native form. Token and search limits above the operator's are cut.

    Raises:
        ApiError: an option is not allowed.
    """
    max_searches = body.max_searches
    if body.is_closed_book:
        max_searches = 0
    elif max_searches is None and body.max_tool_calls is not None:
        max_searches = min(body.max_tool_calls, body.max_turns or settings.max_turns)
    return body.options(
        settings,
        max_tokens=body.max_output_tokens,
        max_searches=max_searches,
        context_size=body.offered.context_size,
        is_cache_only=body.offered.is_cache_only,
    )


async def read_asked(body: ResponsesRequest, find: FindRun) -> Asked:
    """Return the conversation: the previous response's turns and answer, then the input up to its question.

    Raises:
        ApiError: an item or a response that it names does not exist, or there is no question.
    """
    earlier = await _earlier(body.previous_response_id, find)
    messages = await _messages(body.input, find)
    conversation = read_conversation(messages, "input")
    return Asked(replace(conversation, turns=[*earlier, *conversation.turns]), messages)


async def turns_to_compact(body: CompactRequest, find: FindRun) -> list[Turn]:
    """Return all turns of a conversation, whatever it ends in.

    Raises:
        ApiError: an item or a response that it names does not exist, or there is nothing to compact.
    """
    turns = await _earlier(body.previous_response_id, find)
    messages = [] if body.input is None else await _messages(body.input, find)
    turns += [Turn(message.role, text_of(message.content, message.where)) for message in messages]
    turns = [turn for turn in turns if turn.text.strip()]
    if not turns:
        raise invalid("There is nothing to compact: send 'input', or 'previous_response_id'.", param="input")
    return turns


async def _messages(given: Any, find: FindRun) -> list[Message]:
    messages: list[Message] = []
    for item in read_input(given):
        messages += [item] if isinstance(item, Message) else await _referred(item.id, find)
    return messages


async def _earlier(response_id: str | None, find: FindRun) -> list[Turn]:
    if not response_id:
        return []
    try:
        meta, run = await find(response_id)
    except RunNotFoundError as error:
        message = f"Previous response with id {response_id!r} not found."
        raise invalid(message, param="previous_response_id", code="previous_response_not_found") from error
    if run.status == "running":
        raise invalid("The previous response is still in progress.", param="previous_response_id")
    turns = [Turn(role, text) for role, text in meta.request["turns"]]
    return [*turns, Turn("assistant", run.answer)] if run.answer else turns


async def _referred(item_id: str, find: FindRun) -> list[Message]:
    """Return the answer that an item's id stands for.

    Reasoning and searches give nothing: they add nothing to a question.
    """
    kind, _, key = item_id.partition("_")
    if kind in ("rs", "ws"):
        return []
    try:
        if kind != "msg":  # No other kind is kept.
            raise RunNotFoundError(item_id)
        _, run = await find(f"resp_{key}")
    except RunNotFoundError as error:
        raise ApiError(404, f"Item with id {item_id!r} not found.", code="item_not_found", param="input") from error
    if run.status == "running":
        raise invalid(f"The response of item {item_id!r} is still in progress.", param="input")
    return [Message("assistant", run.answer, "input")] if run.answer else []


def stored_request(body: ResponsesRequest, asked: Asked, response_id: str, settings: Settings) -> dict[str, Any]:
    """Return the part of the request that is stored; see the module's docstring."""
    return {
        "fields": _fields(body, settings),
        "input": _input_items(asked.messages, key_of(response_id)),
        "turns": [[turn.role, turn.text] for turn in asked.conversation.turns],
        "include": list(dict.fromkeys(body.include or ())),
    }


def _fields(body: ResponsesRequest, settings: Settings) -> Json:
    """Return the fields of the request that the response repeats, with the values that held where it set none."""
    reasoning = body.reasoning
    return {
        "background": bool(body.background),
        "store": body.store is not False and settings.store_runs,
        "instructions": body.instructions,
        "previous_response_id": body.previous_response_id,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": body.max_tool_calls,
        "temperature": settings.temperature if body.temperature is None else body.temperature,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "presence_penalty": body.presence_penalty or 0.0,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "top_logprobs": 0,
        "tools": [_tool(tool) for tool in _repeated(body.tools or [], "tools")],
        "tool_choice": _repeated(body.tool_choice or "auto", "tool_choice"),
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "reasoning": {"effort": None, "summary": None if reasoning is None else reasoning.summary},
        "text": {"format": {"type": "text"}},
        "truncation": body.truncation or "disabled",
        "service_tier": "default",
        "metadata": body.metadata or {},
        "user": body.user,
        "safety_identifier": body.safety_identifier,
        "prompt_cache_key": body.prompt_cache_key,
    }


def _repeated(value: Any, param: str) -> Any:
    """Return the JSON that a response can repeat of what a client sent.

    Raises:
        ApiError: it can't be written again: it has half of a surrogate pair.
    """
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except ValueError as error:
        message = f"'{param}': It holds text that is not valid Unicode."
        raise invalid(message, param=param) from error


def _tool(tool: Any) -> Any:
    """Return a tool as sent; a function has all its fields, since clients require them."""
    if isinstance(tool, dict) and tool.get("type") == "function" and "name" in tool:
        return {"description": None, "parameters": None, "strict": None, **tool}
    return tool


def _input_items(messages: Sequence[Message], key: str) -> list[Json]:
    """Return the request's messages, each with an id of its own."""
    said = [message for message in messages if message.role != "tool"]
    return [_message(message, f"msg_{key}_{i}") for i, message in enumerate(said)]


def _message(message: Message, item_id: str) -> Json:
    text = text_of(message.content, message.where)
    if message.role == "assistant":
        part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    else:
        part = {"type": "input_text", "text": text}
    return {"id": item_id, "type": "message", "role": message.role, "status": "completed", "content": [part]}
