"""The trace that is served, by W3C Trace Context: its headers, for the servers behind this one."""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Final

TRACE_HEADERS: Final[ContextVar[Mapping[str, str]]] = ContextVar("trace_headers", default=MappingProxyType({}))
"""``traceparent``, and ``tracestate`` where there is one, of what is done here or in a task that it began.

They are the client's own, or those of a span of ours where runs are traced.
"""

_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE: Final = re.compile(r"[ -~]{1,512}")


def trace_headers(received: Mapping[str, str]) -> dict[str, str]:
    """Return the trace that ``received`` headers, whose names are in lower case, belong to; empty for none."""
    traceparent, tracestate = received.get("traceparent", ""), received.get("tracestate", "")
    if not _TRACEPARENT.fullmatch(traceparent):
        return {}
    headers = {"traceparent": traceparent}
    if _TRACESTATE.fullmatch(tracestate):
        headers["tracestate"] = tracestate
    return headers
