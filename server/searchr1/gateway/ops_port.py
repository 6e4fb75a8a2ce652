"""The operators' port: what is theirs is served there and no longer on the clients' port.

Both ports lead to one app. What comes in by the operators' is marked, by the server that took it; no header decides.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from searchr1.gateway.bounds import OPS_CONNECTIONS, http_bounds
from searchr1.gateway.errors import ApiError, nothing_at
from searchr1.http_server.paths import without_controls
from searchr1.http_server.serving import server_config
from searchr1.settings import Settings

PROBES: Final = ("/healthz", "/readyz", "/health", "/ping", "/version")
"""Served on both ports."""
OF_OPERATORS: Final = ("/metrics", "/admin", "/docs")
"""Served on theirs alone, where they have one; with everything below."""
_ALSO_THERE: Final = (*PROBES, "/openapi.json", "/assets")
_MARK: Final = "searchr1.operators"


def is_of_operators(scope: Scope) -> bool:
    """Tell whether a request came in by the operators' port."""
    return scope.get(_MARK) is True


class SeparatePorts:
    """Middleware that answers 404 for what the other port serves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or is_of_operators(scope) == _is_theirs(scope["path"]) or _is_on_both(scope["path"]):
            return self._app(scope, receive, send)
        message = nothing_at(scope["method"], scope["path"])
        return ApiError(404, message, code="not_found").response()(scope, receive, send)


@contextmanager
def ops_listener(settings: Settings, listen: Callable[[str, int], socket.socket]) -> Iterator[socket.socket | None]:
    """Yield a socket on the operators' port, None where they have none. Raises ``ConfigurationError``."""
    if settings.ops_port is None:
        yield None
        return
    with listen(ops_host(settings), settings.ops_port) as listener:
        yield listener


def ops_host(settings: Settings) -> str:
    """Return the address of the operators' port."""
    return settings.host if settings.ops_host is None else settings.ops_host


def ops_config(app: ASGIApp, settings: Settings) -> Any:
    """Return uvicorn's configuration of a server for the operators' port."""

    async def marked(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, _MARK: True}, receive, send)

    bounds = replace(http_bounds(settings), max_connections=OPS_CONNECTIONS)
    return server_config(marked, bounds, lifespan="off", log_config=None)


def _is_theirs(path: str) -> bool:
    # A route's pattern also matches a path with a line's end behind it.
    return _is_below(without_controls(path), OF_OPERATORS)


def _is_on_both(path: str) -> bool:
    return _is_below(path, _ALSO_THERE)


def _is_below(path: str, tops: tuple[str, ...]) -> bool:
    return any(path == top or path.startswith(f"{top}/") for top in tops)
