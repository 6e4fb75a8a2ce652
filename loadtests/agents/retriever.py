"""The search server of all arms, with upstream's ``/retrieve``: a trace's passages, after the trace's latencies."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aiohttp import web

from loadtests.agents.trace import Trace


@dataclass
class Retriever:
    """A server on this event loop."""

    trace: Trace
    url: str = ""
    num_searches: int = 0
    """Searches that it answered, or would have."""

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one search; a query of no run finds nothing, at once."""
        query = (await request.json())["queries"][0].strip()
        self.num_searches += 1
        contents = self.trace.found.get(query)
        if contents is None:
            return web.json_response({"result": [[]]})
        await asyncio.sleep(self.trace.latency_s(query))
        found = [{"document": {"contents": text}, "score": 1.0} for text in contents]
        return web.json_response({"result": [found]})


@contextlib.asynccontextmanager
async def serving(trace: Trace, port: int) -> AsyncIterator[Retriever]:
    """Serve a trace's searches while the block runs."""
    retriever = Retriever(trace, f"http://127.0.0.1:{port}/retrieve")
    app = web.Application()
    app.router.add_post("/retrieve", retriever.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield retriever
    finally:
        await runner.cleanup()
