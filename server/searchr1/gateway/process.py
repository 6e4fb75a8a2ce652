"""The gateway's process: uvicorn on one event loop, until a signal ends it in good order.

The server answers before anything is open: probes are told that it starts. After a signal it goes through four
phases: requests are still taken while ``/readyz`` says that it stops (``drain_s``); no connection is taken any more,
and runs go on (``shutdown_grace_s``), those that nobody reads on other gateways, if there are any; what is left goes on
there too, or ends as failed, and readers are told of either; connections that still do not end are cut.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import Final

import uvicorn
import uvloop
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from searchr1.errors import SearchR1Error
from searchr1.gateway.access.exposure import check_exposure, log_exposure
from searchr1.gateway.app import create_app
from searchr1.gateway.bounds import http_bounds
from searchr1.gateway.logs import configure_logging
from searchr1.gateway.ops_port import ops_config, ops_listener
from searchr1.gateway.runs.drive import stop_runs
from searchr1.gateway.services import open_services
from searchr1.gateway.workers import SIGNALS, Assignment, follow_supervisor, supervise
from searchr1.http_server.serving import server_config
from searchr1.settings import Settings
from searchr1.sockets import bind, join_shared

logger = logging.getLogger(__name__)

LAST_WORDS_S = 3.0
"""Seconds that readers have to take the last events of runs that were ended."""
_GC_THRESHOLDS: Final = (100_000, 10, 10)
"""A run that starts leaves some 600 objects that live as long as it does: many that start at one moment would be walked
again and again, in pauses that all of them wait for, and nothing found."""
_SAME_SIGNAL_S = 1.0
"""Signals within this time of the first mean no more than it: ``timeout`` and terminals send several."""


def serve_forever(
    settings: Settings, *, prepare: Callable[[], None] | None = None, warnings: Sequence[str] = ()
) -> None:
    """Serve until a signal. Running requests get ``shutdown_grace_s`` to end.

    ``prepare`` is called before anything opens, and not for settings that are refused. ``warnings`` of the settings are
    logged.

    Raises:
        SearchR1Error: the settings can't work or leave the server open by oversight, the port is taken, or the engine
            does not start.
    """
    check_exposure(settings, os.environ)
    if prepare is not None:
        prepare()
    configure_logging(settings.log_level, form=settings.log_format)
    for warning in warnings:
        logger.warning("%s", warning)
    if settings.workers > 1:
        log_exposure(settings)
        supervise(settings, work)
    else:
        _run(settings)


def work(assignment: Assignment) -> None:
    """Serve as one of several workers, until a signal or the end of the supervisor."""
    settings = assignment.settings
    follow_supervisor(settings)
    configure_logging(settings.log_level, form=settings.log_format, process=assignment.name)
    try:
        _run(settings, assignment)
    except SearchR1Error as error:
        assignment.failed(error)
        sys.exit(1)


def _run(settings: Settings, assignment: Assignment | None = None) -> None:
    # Streams end with their runs; the default would cut them at the first signal.
    AppStatus.enable_automatic_graceful_drain = False
    with contextlib.suppress(asyncio.CancelledError):
        uvloop.run(_serve(settings, assignment))


async def _serve(settings: Settings, assignment: Assignment | None = None) -> None:
    # Bound first: a port that is taken should not be found out after a minute of starting vLLM.
    listen = bind if assignment is None else join_shared
    with listen(settings.host, settings.port) as listener, ops_listener(settings, listen) as for_operators:
        app = create_app(settings) if assignment is None else _app_of_worker(settings, assignment)
        config = server_config(app, http_bounds(settings), lifespan="off", log_config=None)
        server = _Server(config)
        stopping = _Stopping(settings, app, server)
        opened = asyncio.Event()
        if assignment is None or assignment.is_first:
            opened.set()
        serving = asyncio.create_task(_listen(server, listener, opened))
        ops_server = _Server(ops_config(app, settings))
        serving_ops = asyncio.create_task(_listen(ops_server, for_operators, opened))
        try:
            async with app.router.lifespan_context(app):
                stopping.is_open = True
                # What is there now stays: without this, each full collection walks all of it while streams wait.
                gc.collect()
                gc.freeze()
                # A streamed token makes a dozen objects that die at once; looking for cycles after every 700 of them
                # costs more than what it finds.
                gc.set_threshold(*_GC_THRESHOLDS)
                opened.set()
                if assignment is None:
                    log_exposure(settings)
                    logger.info("Serving %s at %s", settings.public_name, _url(listener))
                    if for_operators is not None:
                        logger.info("Operators are served at %s", _url(for_operators))
                else:
                    assignment.opened()
                try:
                    await serving
                finally:  # What operators ask for needs what the end of the block closes.
                    await _end(ops_server, serving_ops)
        finally:
            for one in (server, ops_server):
                one.should_exit = one.force_exit = True
            opened.set()
            await asyncio.gather(serving, serving_ops)


async def _listen(server: "_Server", listener: socket.socket | None, opened: asyncio.Event) -> None:
    await opened.wait()
    if listener is not None:
        await server.serve(sockets=[listener])


async def _end(server: "_Server", serving: "asyncio.Task[None]") -> None:
    """Have a server take nothing more and answer what it has taken; cut what does not end."""
    server.should_exit = True
    if (await asyncio.wait((serving,), timeout=LAST_WORDS_S))[1]:
        server.cut()
        await asyncio.wait((serving,))


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _app_of_worker(settings: Settings, assignment: Assignment) -> FastAPI:
    return create_app(settings, open_services=partial(open_services, gateway=assignment.gateway))


class _Server(uvicorn.Server):
    """Leaves signals to ``_Stopping``: uvicorn's own way kills the process before an engine could be stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def cut(self) -> None:
        """End the connections that still do not."""
        self.force_exit = True
        for answering in self.server_state.tasks:
            answering.cancel()


class _Stopping:
    """Turns SIGINT and SIGTERM into an orderly end: before the app is open by cancelling, then by its phases.

    A second signal ends the phase that lasts.
    """

    def __init__(self, settings: Settings, app: FastAPI, server: _Server) -> None:
        self.is_open = False
        self._settings, self._app, self._server = settings, app, server
        self._main = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._began_at: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal, number)
        # A worker starts with them held back.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, number: signal.Signals) -> None:
        now = self._loop.time()
        if self._began_at is None:
            self._began_at = now
            self._begin(drain_s=0.0 if number == signal.SIGINT else self._settings.drain_s)
        elif self.is_open and now - self._began_at > _SAME_SIGNAL_S:
            self._close()
            self._end_runs()

    def _begin(self, *, drain_s: float) -> None:
        if not self.is_open:
            assert self._main is not None
            self._main.cancel()
            return
        logger.info(
            "stopping: taking requests for %g s more, then ending within %g s", drain_s, self._settings.shutdown_grace_s
        )
        self._app.state.services.readiness.is_stopping = True
        self._spawn(self._app.state.hub.stop_taking())
        if drain_s:
            self._loop.call_later(drain_s, self._close)
        else:
            self._close()
        self._loop.call_later(drain_s + self._settings.shutdown_grace_s, self._end_runs)

    def _close(self) -> None:
        if self._server.should_exit:
            return
        self._server.should_exit = True
        self._app.state.services.readiness.is_closed = True
        self._spawn(self._app.state.hub.leave(unread_only=True))

    def _end_runs(self) -> None:
        self._spawn(self._leave_or_end())

    async def _leave_or_end(self) -> None:
        try:
            await self._app.state.hub.leave()
        finally:  # An error of the server's own must not keep it from stopping.
            if num_runs := stop_runs(self._app.state.services):
                logger.warning("runs that had not ended in time and were ended: %d", num_runs)
            self._loop.call_later(LAST_WORDS_S, self._server.cut)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
