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

_W3C: Final = TraceContextTextMapPropagator()


class Spans:
    """A source of spans. Whether one is recorded is its parent's decision, or the sampler's where it has none."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("searchr1", version("searchr1"), schema_url=names.SCHEMA_URL)

    def start(
        self, name: str, parent: Mapping[str, str], attributes: Mapping[str, AttributeValue], kind: SpanKind
    ) -> Span:
        """Return a new span below the one that the headers ``parent`` name; a new trace's first one without any."""
        context = _W3C.extract(parent, context=Context())
        return self._tracer.start_span(name, context=context, kind=kind, attributes=attributes)


def headers_of(span: Span) -> dict[str, str]:
    """Return the headers that name ``span`` as the parent of what a server behind this one does."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, context=set_span_in_context(span, Context()))
    return headers


def fail(span: Span, kind: str, message: str = "") -> None:
    """Mark a span as failed. ``message`` holds nothing of what was asked, found or sampled."""
    span.set_attribute(names.ERROR_TYPE, kind)
    span.set_status(Status(StatusCode.ERROR, message or None))
