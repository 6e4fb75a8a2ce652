"""The gateway's log: one form for every logger, lines for requests, and few lines for many refusals.

Lines of a request, and of the run that it began, have the ids of both: the request's is the one that the response had
as ``x-request-id``.
"""

import asyncio
import logging
import time
from collections import Counter
from contextvars import Context
from typing import Final, Literal
from urllib.parse import quote

from starlette.types import ASGIApp, Receive, Scope, Send

from searchr1.gateway.log_lines import JsonFormatter, LineFormatter
from searchr1.gateway.request_scope import status_of

BURST_S: Final = 10.0
"""Seconds between two lines about the same kind of refusal."""

_MAX_PATH_CHARS = 200
# Their lines below these levels name full URLs, headers or pieces of answers, or say what a line of ours says better.
_LOUD: Final = {
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "opentelemetry.exporter": logging.CRITICAL,
    "opentelemetry.sdk._shared_internal": logging.ERROR,
    "sse_starlette": logging.WARNING,
    "stamina": logging.ERROR,
    "uvicorn": logging.WARNING,
}

access_logger = logging.getLogger("searchr1.access")


def configure_logging(level: str, *, form: Literal["text", "json"] = "text", process: str = "") -> None:
    """Have the root logger write to stderr from ``level`` on, unless a program around us has configured it.

    ``process`` names the process in each line, where there are several.
    """
    handler = logging.StreamHandler()
    handler.setFormatter((JsonFormatter if form == "json" else LineFormatter)(process=process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.captureWarnings(True)
    for name, lowest in _LOUD.items():
        logging.getLogger(name).setLevel(lowest)


class BurstLog:
    """A log of the first of many events of a kind at once, and of how many followed every ``BURST_S`` seconds."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._num_more: Counter[str] = Counter()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def note(self, what: str) -> None:
        """Take an event; ``what`` is its kind and its line."""
        if what in self._timers:
            self._num_more[what] += 1
            return
        self._logger.warning("%s", what)
        self._plan(what)

    def _plan(self, what: str) -> None:
        # In a context of its own: the summary is of many requests.
        loop = asyncio.get_running_loop()
        self._timers[what] = loop.call_later(BURST_S, self._summarize, what, context=Context())

    def _summarize(self, what: str) -> None:
        del self._timers[what]
        if num_more := self._num_more.pop(what, 0):
            self._logger.warning("%s: %d more in %g s", what, num_more, BURST_S)
            self._plan(what)


class AccessLog:
    """ASGI middleware: one line for each request, when its response ends. It holds no query, body or key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            # Where a path has "%", what follows was left encoded: see ``http_server/paths.py``.
            path = quote(scope["path"][:_MAX_PATH_CHARS], safe="/:%")
            took_s, status = time.perf_counter() - started, status_of(scope)
            fields = {"method": scope["method"], "path": path, "status": status, "duration_s": round(took_s, 6)}
            words = (scope["method"], path, status or "left", took_s)
            access_logger.info("%s %s %s %.3f s", *words, extra={"fields": fields})
