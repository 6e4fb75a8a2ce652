"""A way past middleware for the pieces of a streamed body: ours and the framework's look at an answer's head alone.

Each middleware that wraps ``send`` costs every piece a call, and there are as many as seven.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.types import Scope, Send

_NAME: Final = "searchr1.pieces"

SendPiece = Callable[[bytes], Awaitable[None]]
"""Sends a piece of a body whose head has been sent, and which goes on."""


def offer(scope: Any, send_piece: SendPiece) -> None:
    """Put the way into the ASGI scope of a request."""
    scope[_NAME] = send_piece


def withdraw(scope: Any) -> None:
    """Take it out again: for an answer that is over, or that has no pieces."""
    scope.pop(_NAME, None)


def way_of(scope: Scope, send: Send) -> SendPiece:
    """Return the way that the server offers; through ``send`` where it offers none."""

    async def through(piece: bytes) -> None:
        await send({"type": "http.response.body", "body": piece, "more_body": True})

    way: SendPiece = scope.get(_NAME, through)
    return way
