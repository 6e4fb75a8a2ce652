"""The Model Context Protocol over HTTP: one server for the app's life, and a session of its own for each request.

Requests share nothing, so that any replica can take any of them. A caller is who ``require_key`` found.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request

from searchr1.gateway.mcp.tools import TOOLS, call_tool
from searchr1_client import __version__

_INSTRUCTIONS = (
    "Use 'research' for a factual question that takes searching: it gives an answer with citations. "
    "Use 'search' to see passages yourself."
)


@asynccontextmanager
async def running_mcp(*, max_body_bytes: int) -> AsyncIterator[StreamableHTTPSessionManager]:
    """Run the server until the block ends; what is under way then is cancelled."""
    logging.getLogger("mcp").setLevel(logging.WARNING)
    server: Server[Any] = Server(
        "searchr1",
        title="Search-R1 Serve",
        version=__version__,
        instructions=_INSTRUCTIONS,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
    )
    manager = StreamableHTTPSessionManager(server, stateless=True, max_request_body_size=max_body_bytes)
    async with manager.run():
        yield manager


async def _list_tools(_: Any, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    return types.ListToolsResult(tools=list(TOOLS))


async def _call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    request = context.request
    assert isinstance(request, Request)

    async def report(num_steps: int, step: str) -> None:
        await context.session.report_progress(num_steps, None, step)

    return await call_tool(request, params.name, params.arguments or {}, report)
