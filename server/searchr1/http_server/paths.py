"""Paths and methods as clients write them: more slashes than needed, HEAD for any GET."""

import re
from collections.abc import Awaitable
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchr1.http_server.pieces import withdraw

_SLASHES = re.compile("//+")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")


class PlainPaths:
    """Serves a path with doubled or trailing slashes as the plain one, and leads one with control characters nowhere.

    A redirect would name the host that the client named, and lose the scheme that a proxy took off. The pattern of a
    route also matches its path with a line's end behind it, which whoever looks at paths as they are would let pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        path = scope.get("path", "")
        if _CONTROLS.search(path) or "//" in path or (path.endswith("/") and path != "/"):
            scope["path"] = plain(escaped(path))
            scope["raw_path"] = scope["path"].encode()
        return self._app(scope, receive, send)


class HeadAsGet:
    """Middleware that answers HEAD as GET without its body. What GET would stream is not begun to be read."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        return (self._answer_head if is_head else self._app)(scope, receive, send)

    async def _answer_head(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                # The answer is over: whoever streams a body is told that its reader has left.
                await send({"type": "http.response.body", "body": b""})

        as_get = {**scope, "method": "GET"}
        withdraw(as_get)
        try:
            await self._app(as_get, receive, send_head)
        finally:
            if "route" in as_get:
                scope["route"] = as_get["route"]


def plain(path: str) -> str:
    """Return ``path`` with single slashes, and none at its end."""
    return _SLASHES.sub("/", path).rstrip("/") or "/"


def escaped(path: str) -> str:
    """Return ``path`` with its control characters as URLs write them: ``%0A``. No route is named so."""
    return _CONTROLS.sub(lambda found: quote(found[0]), path)


def without_controls(path: str) -> str:
    """Return ``path`` without its control characters."""
    return _CONTROLS.sub("", path)
