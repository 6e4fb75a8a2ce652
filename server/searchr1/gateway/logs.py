"""The gateway's log: one format for every logger, the request's id in each line, and no secrets in any.

Lines of a request, and of the run that it began, end in ``[request req_…]``: the id that the response had as
``x-request-id``.
"""

import asyncio
import logging
import re
import time
from collections import Counter
from contextvars import Context, ContextVar
from typing import Final
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchr1.printable import BREAKS_A_LINE

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is served, here or in a task that it began."""
BURST_S: Final = 10.0
"""Seconds between two lines about the same kind of refusal."""

_CREDENTIALS = re.compile(r"(?<=://)[^\s/@'\"]+@")
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


class LineFormatter(logging.Formatter):
    """The format of the log: a line and its traceback, without credentials in URLs and control characters."""

    def __init__(self, *, process: str = "") -> None:
        """``process`` names the process in each line, where there are several."""
        where = f"[{process}] " if process else ""
        super().__init__(f"%(asctime)s %(levelname)s {where}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        return _CREDENTIALS.sub("***@", super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (its name in the base class)
        """See ``logging.Formatter``."""
        record.message = BREAKS_A_LINE.sub(lambda found: ascii(found[0])[1:-1], record.message)
        line = super().formatMessage(record)
        request_id = REQUEST_ID.get()
        return f"{line} [request {request_id}]" if request_id else line


def configure_logging(level: str, *, process: str = "") -> None:
    """Have the root logger write to stderr from ``level`` on, unless a program around us has configured it.

    ``process`` names the process in each line, where there are several.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter(process=process))
    logging.basicConfig(level=level.upper(), handlers=[handler])
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
        started, status = time.perf_counter(), 0

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noted)
        finally:
            path = quote(scope["path"][:_MAX_PATH_CHARS], safe="/:")
            took_s = time.perf_counter() - started
            access_logger.info("%s %s %s %.3f s", scope["method"], path, status or "left", took_s)
