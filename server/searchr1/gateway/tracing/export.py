"""The delivery of spans to a collector by OTLP over HTTP: a bounded queue and a thread of its own.

Endpoint, headers, sampler, resource and queue are configured by OpenTelemetry's standard variables.
"""

import asyncio
import logging
import os
import threading
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

logger = logging.getLogger(__name__)

CLOSE_WITHIN_S: Final = 2.0
"""Seconds that the end of the server waits for the last spans to be delivered."""
SERVICE_NAME: Final = "searchr1"


@asynccontextmanager
async def open_provider() -> AsyncIterator[TracerProvider]:
    """Open what makes spans and delivers them; at the end of the block the last ones get ``CLOSE_WITHIN_S``."""
    # Its own end at the exit of the process would wait for half a minute.
    provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_Told(OTLPSpanExporter())))
    logger.info("Runs are traced")
    try:
        yield provider
    finally:
        await _close(provider)


async def _close(provider: TracerProvider) -> None:
    loop, closed = asyncio.get_running_loop(), asyncio.Event()

    def close() -> None:
        provider.shutdown()
        with suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(closed.set)

    # The interpreter waits for no daemon, whatever the collector does.
    threading.Thread(target=close, name="traces-end", daemon=True).start()
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await closed.wait()
    except TimeoutError:
        logger.warning("The last traces were not delivered within %g s", CLOSE_WITHIN_S)


def _resource() -> Resource:
    """Return what the spans say of this process: what the variables tell, and else this server's own names."""
    own = {
        "service.name": SERVICE_NAME,
        "service.version": version("searchr1"),
        "service.instance.id": uuid.uuid4().hex,
    }
    told = OTELResourceDetector().detect().attributes
    return Resource.create(
        {name: value for name, value in own.items() if name not in told} | {"process.pid": os.getpid()}
    )


class _Told(SpanExporter):
    """An exporter that says once in the log that spans are lost, and once that they are delivered again."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._num_lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See ``SpanExporter``."""
        result = self._inner.export(spans)
        if result is not SpanExportResult.SUCCESS:
            if not self._num_lost:
                logger.warning("Traces are lost: the collector does not take them. Runs go on as they do without it.")
            self._num_lost += len(spans)
        elif self._num_lost:
            logger.warning("The collector takes traces again; %d spans were lost", self._num_lost)
            self._num_lost = 0
        return result

    def shutdown(self) -> None:
        """See ``SpanExporter``."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See ``SpanExporter``."""
        return self._inner.force_flush(timeout_millis)
