"""The forms of a line of the log, text for people and JSON for programs, and what neither holds.

A line says what happened to which request and run. It holds no key, no question, query, passage or answer, also where
an error quotes one: what is known to quote is cut out here, whoever logs it.
"""

import logging
import re
import traceback
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

import msgspec

from searchr1.errors import SearchR1Error
from searchr1.printable import BREAKS_A_LINE
from searchr1.trace_context import TRACE_HEADERS

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is served, here or in a task that it began."""
RUN_ID: ContextVar[str] = ContextVar("run_id", default="")
"""Id of the run that the request began or asks for, or that a task drives; empty for none."""

_CUT: Final = (
    # Credentials in URLs.
    (re.compile(r"(?<=://)[^\s/@'\"]+@"), "***@"),
    # Token ids, as an engine quotes the request that it refuses: they spell the prompt.
    (re.compile(r"-?\d+(?:, ?-?\d+){3,}"), "…"),
    # Values in pydantic's errors, and errors in asyncio's own words for a task.
    (re.compile(r"input_value=.*?(?=, input_type=|\]|$)", re.DOTALL), "input_value=…"),
    (re.compile(r"exception=(\w+)\(.*\)(?=>)", re.DOTALL), r"exception=\1(…)"),
)
_QUOTE_NOTHING: Final = (
    SearchR1Error,
    OSError,
    RuntimeError,
    TypeError,
    AttributeError,
    NameError,
    ImportError,
    MemoryError,
    ArithmeticError,
    BaseExceptionGroup,
)
"""Errors whose messages name things, states and types. Those of others, such as ``ValueError``, may quote a value."""
_CHAINED: Final = "\nIt led to:\n"


class LineFormatter(logging.Formatter):
    """The form for people: a line, the ids of its request, run and trace, and a traceback where there is one."""

    def __init__(self, *, process: str = "") -> None:
        """``process`` names the process in each line, where there are several."""
        where = f"[{process}] " if process else ""
        super().__init__(f"%(asctime)s %(levelname)s {where}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        record.message = _message_of(record)
        record.asctime = self.formatTime(record)
        line = self.formatMessage(record)
        line += "".join(f" [{name} {value}]" for name, value in _ids().items() if value not in record.message)
        error = _error_of(record)
        return line if error is None else f"{line}\n{_trace_of(error)}"


class JsonFormatter(logging.Formatter):
    """The form for programs: an object in one line, with the same names whatever the line is about."""

    def __init__(self, *, process: str = "") -> None:
        """``process`` names the process in each line, where there are several."""
        super().__init__()
        self._process = {"process": process} if process else {}

    def format(self, record: logging.LogRecord) -> str:
        """See ``logging.Formatter``."""
        at = datetime.fromtimestamp(record.created, UTC)
        told: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message_of(record),
            **self._process,
            **{f"{name}_id": value for name, value in _ids().items()},
            **getattr(record, "fields", {}),
        }
        if (error := _error_of(record)) is not None:
            told["traceback"] = _trace_of(error)
        return msgspec.json.encode(told).decode()


def _ids() -> dict[str, str]:
    """Return the ids that a line of the current context has: of the request, the run, and the client's trace."""
    trace = TRACE_HEADERS.get().get("traceparent", "").split("-")
    ids = {"request": REQUEST_ID.get(), "run": RUN_ID.get(), "trace": trace[1] if len(trace) > 1 else ""}
    return {name: value for name, value in ids.items() if value}


def _message_of(record: logging.LogRecord) -> str:
    return BREAKS_A_LINE.sub(lambda found: ascii(found[0])[1:-1], without_content(record.getMessage()))


def without_content(text: str) -> str:
    """Return ``text`` without credentials, and without what is known to quote a request."""
    for pattern, instead in _CUT:
        text = pattern.sub(instead, text)
    return text


def _error_of(record: logging.LogRecord) -> BaseException | None:
    return record.exc_info[1] if record.exc_info else None


def _trace_of(error: BaseException) -> str:
    """Return an error and those that led to it, oldest first: frames, classes, and messages that quote nothing."""
    return _CHAINED.join(_told(one) for one in reversed(list(_chain(error))))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen, now = set[int](), error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or (None if now.__suppress_context__ else now.__context__)  # type: ignore[assignment]


def _told(error: BaseException) -> str:
    told = f"{_frames(error.__traceback__)}{type(error).__module__}.{type(error).__qualname__}: {_said(error)}"
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n".join([told, *(f"one of them: {_told(member)}" for member in members)])


def _frames(trace: TracebackType | None) -> str:
    return "".join(traceback.format_tb(trace))


def _said(error: BaseException) -> str:
    if isinstance(error, _QUOTE_NOTHING):
        text = without_content(str(error))
        return BREAKS_A_LINE.sub(lambda found: ascii(found[0])[1:-1], text)
    return "(its message is left out: it may quote a request)"
