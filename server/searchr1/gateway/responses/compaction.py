"""Compacted conversations: the turns that a run would read, in one item that a client sends back.

Nothing is summarized: no checkpoint here can. What falls away is what adds nothing to a question: reasoning, searches,
calls of tools, images. ``encrypted_content`` is the field's name in the API; the turns in it are encoded alone.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Literal

import msgspec

from searchr1.gateway.errors import invalid
from searchr1.gateway.openai.messages import Message
from searchr1.loop.conversation import Turn


class _Compacted(msgspec.Struct, frozen=True):
    version: Literal[1]
    turns: list[tuple[Literal["user", "assistant", "system", "developer", "tool"], str]]


def compact(turns: Sequence[Turn]) -> str:
    """Return turns as the content of an item."""
    held = {"version": 1, "turns": [(turn.role, turn.text) for turn in turns]}
    return base64.urlsafe_b64encode(msgspec.json.encode(held)).decode()


def expand(content: object, where: str) -> list[Message]:
    """Return the turns of a compacted item that came as ``where``.

    Raises:
        ApiError: its content is none of ``compact``.
    """
    try:
        if not isinstance(content, str):
            raise TypeError("no text")
        held = msgspec.json.decode(base64.urlsafe_b64decode(content.encode()), type=_Compacted)
    except (TypeError, ValueError, binascii.Error, msgspec.DecodeError) as error:
        param = f"{where}.encrypted_content"
        message = f"'{param}': It was not made by this server. Send the messages themselves."
        raise invalid(message, param=param) from error
    return [Message(role, text, where) for role, text in held.turns]
