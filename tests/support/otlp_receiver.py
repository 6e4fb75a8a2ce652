"""A receiver of OTLP over HTTP, which decodes what it is sent with OpenTelemetry's own protobuf classes."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

KINDS = {
    WireSpan.SPAN_KIND_INTERNAL: "internal",
    WireSpan.SPAN_KIND_SERVER: "server",
    WireSpan.SPAN_KIND_CLIENT: "client",
}


@dataclass(frozen=True)
class Received:
    """One span as it arrived; ids are hexadecimal, times are Unix nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    has_failed: bool
    message: str
    resource: dict[str, Any]
    schema_url: str


@dataclass
class OtlpReceiver:
    """What has arrived. ``status`` is what it answers; ``raw`` are the bodies."""

    url: str = ""
    status: int = 200
    spans: list[Received] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def named(self, start: str) -> list[Received]:
        """Return the spans whose names begin with ``start``, in the order of their beginnings."""
        return sorted((one for one in self.spans if one.name.startswith(start)), key=lambda one: one.start_ns)

    def only(self, start: str) -> Received:
        """Return the one span whose name begins with ``start``."""
        [span] = self.named(start)
        return span


@contextmanager
def receiving() -> Iterator[OtlpReceiver]:
    """Run a receiver on 127.0.0.1 while the block runs."""
    receiver = OtlpReceiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces" and receiver.status == 200:
                receiver.raw.append(body)
                receiver.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self.send_response(receiver.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        receiver.url = f"http://127.0.0.1:{server.server_address[1]}"
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            serving.join()


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for resource_spans in request.resource_spans:
        resource = {one.key: _value(one.value) for one in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Received(
                    name=span.name,
                    kind=KINDS[span.kind],
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes={one.key: _value(one.value) for one in span.attributes},
                    events=[(one.name, {a.key: _value(a.value) for a in one.attributes}) for one in span.events],
                    has_failed=span.status.code == Status.STATUS_CODE_ERROR,
                    message=span.status.message,
                    resource=resource,
                    schema_url=scope_spans.schema_url,
                )


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, str(kind))
