"""The ``input`` of a Responses request: its items as messages, references to stored items, and compacted turns."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from searchr1.gateway.errors import ApiError, invalid
from searchr1.gateway.openai.messages import MAX_MESSAGES, Message, role_of
from searchr1.gateway.responses.compaction import expand

MAX_ID_CHARS = 128

_RESULTS = ("function_call_output", "custom_tool_call_output")
_LEFT_OUT = re.compile(r"reasoning|\w+_(call|output|tools|request|response)")
"""Types of items that add nothing to a question: reasoning, calls, and results that are no text."""


@dataclass(frozen=True, slots=True)
class ItemReference:
    """An item of a stored response, by its id."""

    id: str


def read_input(given: Any) -> Iterator[Message | ItemReference]:
    """Yield what a conversation is made of, in order.

    Raises:
        ApiError: an item can't be read.
    """
    if isinstance(given, str):
        yield Message("user", given, "input")
        return
    if not isinstance(given, list) or not given:
        raise invalid("'input': Send text, or a list of items.", param="input")
    if len(given) > MAX_MESSAGES:
        message = f"'input' has {len(given)} items; at most {MAX_MESSAGES} are taken."
        raise invalid(message, param="input", code="too_long")
    for i, item in enumerate(given):
        yield from _read_item(item, f"input.{i}")


def _read_item(item: Any, where: str) -> Iterator[Message | ItemReference]:
    if not isinstance(item, dict):
        raise invalid(f"'{where}': An item is an object, such as a message.", param=where)
    kind = item.get("type")
    if kind is None:
        kind = "item_reference" if "role" not in item and "id" in item else "message"
    if kind == "message":
        yield _message(item, where)
    elif kind == "item_reference":
        yield _reference(item, where)
    elif kind == "compaction":
        yield from expand(item.get("encrypted_content"), where)
    elif kind in _RESULTS:
        yield Message("tool", item.get("output"), where)
    elif not isinstance(kind, str) or not _LEFT_OUT.fullmatch(kind):
        raise _unknown(kind, where)


def _message(item: dict[str, Any], where: str) -> Message:
    role = item.get("role")
    if not isinstance(role, str):
        raise invalid(f"'{where}.role': A message needs a role, such as 'user'.", param=f"{where}.role")
    return Message(role_of(role, where), item.get("content"), where)


def _reference(item: dict[str, Any], where: str) -> ItemReference:
    item_id = item.get("id")
    if not isinstance(item_id, str) or len(item_id) > MAX_ID_CHARS:
        raise invalid(f"'{where}.id': A reference needs the id of an item.", param=f"{where}.id")
    return ItemReference(item_id)


def _unknown(kind: Any, where: str) -> ApiError:
    message = f"'{where}': Items of type {str(kind)[:40]!r} are not known here. Send messages."
    return invalid(message, param=where, code="unsupported_item")
