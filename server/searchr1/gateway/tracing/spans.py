"""Spans by explicit parents: what is traced crosses tasks, so that no span is the "current" one of any."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from searchr1.gateway.tracing import names
from searchr1.trace_context import TRACE_HEADERS

_W3C: Final = TraceContextTextMapPropagator()


class Spans:
    """A source of spans. Whether one is recorded is its parent's decision, or the sampler's where it has none."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("searchr1", version("searchr1"), schema_url=names.SCHEMA_URL)

    def start(self, name: str, parent: Context, attributes: Mapping[str, AttributeValue], kind: SpanKind) -> Span:
        """Return a new span below the one in ``parent``; a new trace's first one where there is none."""
        return self._tracer.start_span(name, context=parent, kind=kind, attributes=attributes)


def served() -> Context:
    """Return the context of what is served here: the span that ``TRACE_HEADERS`` name, if they do."""
    return _W3C.extract(TRACE_HEADERS.get(), context=Context())


def context_of(span: Span) -> Context:
    """Return the context of what is below ``span``."""
    return set_span_in_context(span, Context())


def headers_of(span: Span) -> dict[str, str]:
    """Return the headers that name ``span`` as the parent of what a server behind this one does."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, context=context_of(span))
    return headers


def fail(span: Span, kind: str, message: str = "") -> None:
    """Mark a span as failed. ``message`` holds nothing of what was asked, found or sampled."""
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, message or None))
