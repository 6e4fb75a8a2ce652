"""Middleware that makes a span of each request that begins a run, where runs are traced."""

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from starlette.types import ASGIApp, Receive, Scope, Send

from searchr1.gateway.log_lines import REQUEST_ID
from searchr1.gateway.request_scope import status_of

if TYPE_CHECKING:
    from searchr1.gateway.tracing.tracing import Tracing

TRACED: Final = frozenset({"/v1/research", "/v1/research/replay", "/v1/chat/completions", "/v1/responses"})
"""Paths of requests that begin runs. Of the MCP server's, few do: its runs are spans without one."""


class RequestSpans:
    """ASGI middleware, inside ``RequestId``. It watches no message: a stream costs what it costs without it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_traced = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in TRACED
        tracing = _tracing_of(scope) if is_traced else None
        if tracing is None:
            return self._app(scope, receive, send)
        return self._traced(tracing, scope, receive, send)

    async def _traced(self, tracing: "Tracing", scope: Scope, receive: Receive, send: Send) -> None:
        span = tracing.request(scope["path"], scheme=scope["scheme"], request_id=REQUEST_ID.get())
        failure: Exception | None = None
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failure = error
            raise
        finally:
            span.ended(status_of(scope) or None, failure)


def _tracing_of(scope: Scope) -> "Tracing | None":
    services = getattr(scope["app"].state, "services", None)
    tracing: Tracing | None = None if services is None else services.tracing
    return tracing
