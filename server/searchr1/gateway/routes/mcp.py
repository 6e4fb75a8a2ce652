"""``/mcp``: the Model Context Protocol (streamable HTTP), for assistants and editors that call tools."""

from fastapi import APIRouter, Request
from fastapi.responses import Response
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.types import Message, Receive, Scope, Send

from searchr1.gateway.routes.guarded import GuardedRoute
from searchr1.printable import plain_json

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
        """Let the protocol's server answer: whole JSON, or a stream with each event in one piece."""

        async def send_plain(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": plain_json(message.get("body", b""))}
            await send(message)

        await self._manager.handle_request(scope, receive, send_plain)
