"""A Responses request as a run: its conversation, its options, and what is stored to shape the response again.

What is stored (``RunMeta.request``): ``fields`` (what the response object repeats of the request), ``input`` (the
request's own items), ``turns`` (the conversation without ``instructions``) and ``include``.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.responses.items import Json
from searchr1.gateway.responses.models import ItemReference, MessageItem, ResponsesRequest
from searchr1.gateway.responses.shape import key_of
from searchr1.gateway.runs.errors import RunNotFoundError
from searchr1.gateway.runs.store.base import RunMeta
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn
from searchr1.settings import Settings
from searchr1_client.events import Run

FindRun = Callable[[str], Awaitable[tuple[RunMeta, Run]]]
"""Finds a stored response by its id. Raises ``RunNotFoundError``."""


def run_options(body: ResponsesRequest, settings: Settings) -> RunOptions:
    """Return the request's options in the native form. Token and search limits above the operator's are cut."""
    max_searches = body.max_tool_calls
    if body.tool_choice == "none":
        max_searches = 0
    max_turns = body.max_turns or settings.max_turns
    return RunOptions(
        max_turns=body.max_turns,
        max_searches=None if max_searches is None else min(max_searches, max_turns),
        max_tokens=None if body.max_output_tokens is None else min(body.max_output_tokens, settings.max_run_tokens),
        top_k=_top_k(body, settings),
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        deadline_s=body.deadline_s,
        cache="only" if any(tool.external_web_access is False for tool in body.tools or ()) else "default",
    )


def _top_k(body: ResponsesRequest, settings: Settings) -> int | None:
    """Return the passages per search, which is how a search's context size is told to the run."""
    if body.top_k is not None:
        return body.top_k
    sizes = [tool.search_context_size for tool in body.tools or () if tool.search_context_size is not None]
    if not sizes:
        return None
    return min({"low": 1, "medium": settings.top_k, "high": settings.max_top_k}[sizes[-1]], settings.max_top_k)


async def turns_of(body: ResponsesRequest, find: FindRun) -> list[Turn]:
    """Return the conversation without ``instructions``: the previous response's turns and answer, then the input.

    Raises:
        ApiError: an item or a response that it names does not exist, or it does not end in a question.
    """
    turns = [] if body.previous_response_id is None else await _earlier(body.previous_response_id, find)
    for item in body.input:
        if isinstance(item, MessageItem):
            turns.append(Turn(item.role, item.text))
        elif isinstance(item, ItemReference):
            turns += await _referred(item.id, find)
    if question_of(turns) is None:
        raise invalid("The last message must have the role 'user'; it is the question.", param="input")
    return turns


def question_of(turns: list[Turn]) -> str | None:
    """Return the last message that is no instruction; None where that is not the user's."""
    last = next((turn for turn in reversed(turns) if turn.role not in INSTRUCTION_ROLES), None)
    return last.text if last is not None and last.role == "user" else None


async def _earlier(response_id: str, find: FindRun) -> list[Turn]:
    try:
        meta, run = await find(response_id)
    except RunNotFoundError as error:
        message = f"Previous response with id {response_id!r} not found."
        raise invalid(message, param="previous_response_id", code="previous_response_not_found") from error
    if run.status == "running":
        raise invalid("The previous response is still in progress.", param="previous_response_id")
    turns = [Turn(role, text) for role, text in meta.request["turns"]]
    return [*turns, Turn("assistant", run.answer)] if run.answer else turns


async def _referred(item_id: str, find: FindRun) -> list[Turn]:
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
    return [Turn("assistant", run.answer)] if run.answer else []


def stored_request(body: ResponsesRequest, turns: list[Turn], response_id: str, settings: Settings) -> dict[str, Any]:
    """Return the part of the request that is stored; see the module's docstring."""
    return {
        "fields": _fields(body, settings),
        "input": _input_items(body, key_of(response_id)),
        "turns": [[turn.role, turn.text] for turn in turns],
        "include": list(dict.fromkeys(body.include or ())),
    }


def _fields(body: ResponsesRequest, settings: Settings) -> Json:
    """Return the fields of the request that the response repeats, with the values that held where it set none."""
    tools = [tool.model_dump(exclude_none=True, exclude={"filters"}) for tool in body.tools or ()] or [
        {"type": "web_search"}
    ]
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
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "top_logprobs": 0,
        "tools": tools,
        "tool_choice": body.tool_choice or "auto",
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


def _input_items(body: ResponsesRequest, key: str) -> list[Json]:
    """Return the request's messages, each with an id of its own."""
    messages = [item for item in body.input if isinstance(item, MessageItem)]
    return [_message(item, f"msg_{key}_{i}") for i, item in enumerate(messages)]


def _message(item: MessageItem, item_id: str) -> Json:
    if item.role == "assistant":
        part: Json = {"type": "output_text", "text": item.text, "annotations": [], "logprobs": []}
    else:
        part = {"type": "input_text", "text": item.text}
    return {"id": item_id, "type": "message", "role": item.role, "status": "completed", "content": [part]}
