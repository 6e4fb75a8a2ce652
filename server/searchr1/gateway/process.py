"""The gateway's process: uvicorn on one event loop, until a signal ends it in good order."""

import asyncio
import contextlib
import gc
import logging
import signal
from collections.abc import Iterator

import uvicorn
import uvloop
from sse_starlette.sse import AppStatus

from searchr1.gateway.app import create_app
from searchr1.gateway.bounds import http_bounds
from searchr1.gateway.services import open_services
from searchr1.http_server.serving import server_config
from searchr1.settings import Settings
from searchr1.sockets import bind

logger = logging.getLogger(__name__)


def serve_forever(settings: Settings) -> None:
    """Serve until a signal. Running requests get ``shutdown_grace_s`` to end.

    Raises:
        SearchR1Error: the settings can't work, the port is taken, or the engine does not start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # Streams end with their runs; the default would cut them at the first signal.
    AppStatus.enable_automatic_graceful_drain = False
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stopping = _Stopping()
    # Bound first: a port that is taken should not be found out after a minute of starting vLLM.
    with bind(settings.host, settings.port) as listener:
        async with open_services(settings) as services:
            # What is there now stays: without this, each full collection walks all of it while streams wait.
            gc.collect()
            gc.freeze()
            config = server_config(
                create_app(settings, open_services=lambda _: contextlib.nullcontext(services)),
                http_bounds(settings),
                timeout_graceful_shutdown=int(settings.shutdown_grace_s),
            )
            host, port = listener.getsockname()[:2]
            logger.info("Serving %s at http://%s:%s", settings.public_name, host, port)
            stopping.server = _Server(config)
            await stopping.server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """Leaves signals to ``_Stopping``: uvicorn's own way kills the process before an engine could be stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Stopping:
    """Turns SIGINT and SIGTERM into an orderly end: before the server runs by cancelling, then by draining it."""

    def __init__(self) -> None:
        self.server: _Server | None = None
        self._starting = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        if self.server is not None:
            self.server.force_exit = self.server.should_exit
            self.server.should_exit = True
        elif self._starting is not None:
            self._starting.cancel()
