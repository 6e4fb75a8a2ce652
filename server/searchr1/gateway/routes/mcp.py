"""``/mcp``: the Model Context Protocol (streamable HTTP), for assistants and editors that call tools."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.gateway.sse import one_line

router = APIRouter(route_class=GuardedRoute)


@router.post("/mcp", include_in_schema=False)
async def mcp(request: Request) -> Response:
    """Take a message of the protocol; its server reads the request and writes the response itself.

    There is no ``GET``: without sessions, nothing is said but in answer to a message.
    """
    return _Exchange(request.app.state.mcp)


class _Exchange(Response):
    """A response that ``manager`` makes of the request."""

    def __init__(self, manager: StreamableHTTPSessionManager) -> None:
        super().__init__()
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the protocol's server answer; in its streams, an event is one line for every reader of lines."""
        is_stream = False

        async def send_lines(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                is_stream = Headers(raw=message["headers"]).get("content-type", "").startswith("text/event-stream")
            elif is_stream:
                message = {**message, "body": one_line(message.get("body", b""))}
            await send(message)

        await self._manager.handle_request(scope, receive, send_lines)
