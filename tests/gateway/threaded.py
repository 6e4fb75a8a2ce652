"""A stage whose gateway runs in a thread of its own, for clients that block."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from tests.gateway.conftest import Stage, running_stage


@contextlib.contextmanager
def threaded_stage(**given: Any) -> Iterator[Stage]:
    """Run a stage in a thread, as ``running_stage`` does; its own client must not be used from here."""
    started: Future[Stage] = Future()
    loops: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        ends = asyncio.Event()
        loops.set_result((asyncio.get_running_loop(), ends))
        try:
            async with running_stage(**given) as stage:
                started.set_result(stage)
                await ends.wait()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        yield started.result(timeout=60)
    finally:
        loop, ends = loops.result(timeout=60)
        loop.call_soon_threadsafe(ends.set)
        thread.join(timeout=60)
        assert not thread.is_alive()
