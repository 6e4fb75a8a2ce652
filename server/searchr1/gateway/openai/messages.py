"""Messages as clients of all kinds write them, read as a conversation of text that ends in a question.

The history may hold anything: it is quoted as far as it is text, images and the like by their kind, and the
assistant's reasoning and calls are left out. Only the question itself has to be text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.gateway.errors import ApiError, invalid
from searchr1.loop.conversation import INSTRUCTION_ROLES, Turn
from searchr1.printable import has_half_pair

MAX_MESSAGES = 2048
"""Messages or items of one request; what they hold is bounded by the size of the body."""

_ROLES = {
    **{role: role for role in ("user", "assistant", "system", "developer", "tool")},
    **{"human": "user", "model": "assistant", "ai": "assistant", "bot": "assistant"},
    **{"function": "tool", "observation": "tool", "ipython": "tool"},
}
"""Roles by the names that clients use."""
_TEXTS = ("text", "input_text", "output_text")
_LEFT_OUT = re.compile(r"reasoning|thinking|thought|summary|tool|_call|annotation|citation|signature")
"""In the type of a part that an assistant thinks, calls or is told, but does not say."""
_MEDIA = ("image", "audio", "video", "file", "document")
_NAME = re.compile(r"[\w.-]{1,40}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. ``where`` is the ``param`` that it came in."""

    role: str
    content: Any
    where: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation's turns, of which the last one that is no instruction is the user's question."""

    turns: list[Turn]
    question: str
    is_cut: bool
    """True where messages after the question were left out: an answer begun, or results of tools."""


def role_of(name: str, where: str) -> str:
    """Return the role that ``name`` means. Raises ``ApiError`` for one that means none."""
    role = _ROLES.get(name.strip().lower())
    if role is None:
        message = (
            f"'{where}.role': {name[:40]!r} is no role. Send 'user', 'assistant', 'system', 'developer' or 'tool'."
        )
        raise invalid(message, param=f"{where}.role")
    return role


def read_conversation(messages: Sequence[Message], param: str) -> Conversation:
    """Return the messages as turns up to the last one of the user's, and all instructions.

    Raises:
        ApiError: there is none of the user's, its content is not text, or a message can't be read at all.
    """
    asked = max((i for i, message in enumerate(messages) if message.role == "user"), default=None)
    if asked is None:
        raise invalid("There is no message with the role 'user'; the last one is the question.", param=param)
    question = text_of(messages[asked].content, messages[asked].where, is_question=True)
    turns, is_cut = [], False
    for i, message in enumerate(messages):
        if i == asked:
            turns.append(Turn("user", question))
        elif i < asked or message.role in INSTRUCTION_ROLES:
            turns.append(Turn(message.role, text_of(message.content, message.where)))
        else:
            is_cut = True
    return Conversation(turns, question, is_cut)


def text_of(content: Any, where: str, *, is_question: bool = False) -> str:
    """Return a message's content as text: what is not text of a question is refused, and of the history named.

    Raises:
        ApiError: the content is of no known form, or not valid Unicode.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return _valid(content, f"{where}.content")
    if isinstance(content, dict):
        content = [content]
    if not isinstance(content, list):
        raise invalid(f"'{where}.content': Send text, or a list of parts.", param=f"{where}.content")
    if all(isinstance(part, str) for part in content):
        return _valid("\n".join(content), f"{where}.content")
    told = [_part(part, f"{where}.content.{i}", is_question=is_question) for i, part in enumerate(content)]
    return "".join(told).strip(" ")


def _part(part: Any, where: str, *, is_question: bool) -> str:
    if isinstance(part, str):
        return _valid(part, where)
    kind = part.get("type") if isinstance(part, dict) else None
    if not isinstance(kind, str):
        kind = "text" if isinstance(part, dict) and "text" in part else "part"
    if kind in _TEXTS or kind == "refusal":
        return _valid(_written(part, where, is_question=is_question), where)
    if _LEFT_OUT.search(kind):
        return ""
    if is_question:
        raise _no_text(kind, where)
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return _valid(part["text"], where)
    return f" [{_label(kind)}] "


def _written(part: dict[str, Any], where: str, *, is_question: bool) -> str:
    text = part.get("refusal" if part.get("type") == "refusal" else "text")
    if isinstance(text, dict):
        text = text.get("value")
    if isinstance(text, str):
        return text
    if is_question:
        raise invalid(f"'{where}': The part has no 'text'.", param=where, code="unsupported_content")
    return ""


def _label(kind: str) -> str:
    medium = next((name for name in _MEDIA if name in kind), None)
    if medium is not None:
        return "file" if medium == "document" else medium
    return kind if _NAME.fullmatch(kind) else "part"


def _no_text(kind: str, where: str) -> ApiError:
    why = f"The model reads text alone, and this part of the question is of type {kind[:40]!r}. Send its text instead."
    return invalid(f"'{where}': {why}", param=where, code="unsupported_content")


def _valid(text: str, where: str) -> str:
    if has_half_pair(text):
        raise invalid(f"'{where}': It contains half of a surrogate pair; send valid Unicode.", param=where)
    return text
