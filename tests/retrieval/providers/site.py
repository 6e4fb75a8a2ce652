"""A local server on a real socket: what it answers, and what it was asked."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Site:
    """A local server: what it answers, and what it was asked."""

    answer: Callable[[web.Request], Any]
    url: str = ""
    requests: list[tuple[str, str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    num_left: int = 0
    """Requests whose client left before the answer."""


@asynccontextmanager
async def serving(answer: Callable[[web.Request], Any]) -> AsyncIterator[Site]:
    site = Site(answer)

    async def handle(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        asked = json.loads(body) if body else dict(request.query)
        site.requests.append((request.method, request.path, dict(request.headers), asked))
        try:
            found = site.answer(request)
            response: web.StreamResponse = await found if asyncio.iscoroutine(found) else found
        except asyncio.CancelledError:
            site.num_left += 1
            raise
        return response

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        tcp = web.TCPSite(runner, "127.0.0.1", 0)
        await tcp.start()
        host, port = runner.addresses[0][:2]
        site.url = f"http://{host}:{port}"
        yield site
    finally:
        await runner.cleanup()
