"""The opening of traces, where the standard variables of OpenTelemetry ask for them.

Nothing of OpenTelemetry is imported before. What can't work is logged and leaves traces off: tracing keeps no server
from starting.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from searchr1.errors import missing_package

if TYPE_CHECKING:
    from searchr1.gateway.tracing.tracing import Tracing

logger = logging.getLogger(__name__)

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_NEEDED: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


@asynccontextmanager
async def open_tracing(environ: Mapping[str, str], *, content: bool) -> "AsyncIterator[Tracing | None]":
    """Open the traces that ``environ`` asks for, and deliver what is left of them at the end of the block.

    None where it names no collector, where OpenTelemetry is not installed, and where it can't work; the log says why.
    ``content`` records questions, queries, passages and texts of the model too.
    """
    if not is_wanted(environ):
        yield None
        return
    from searchr1.gateway.tracing.export import open_provider
    from searchr1.gateway.tracing.tracing import Tracing

    async with open_provider() as provider:
        yield Tracing(provider, content=content)


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Return whether ``environ`` names a collector that runs can be traced to; log what keeps them from it."""

    def first(names: tuple[str, ...]) -> str:
        return next((value for name in names if (value := environ.get(name, "").strip())), "")

    if not first(ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = {one.strip() for one in environ.get("OTEL_TRACES_EXPORTER", "otlp").split(",")}
    if not exporters & {"otlp", ""}:
        if exporters != {"none"}:
            logger.warning("Runs are not traced: OTEL_TRACES_EXPORTER must be otlp or none")
        return False
    if first(_PROTOCOLS) not in ("", "http/protobuf"):
        logger.warning("Runs are not traced: OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
        return False
    if not all(map(_is_installed, _NEEDED)):
        logger.warning("Runs are not traced: %s", missing_package("tracing", "opentelemetry-sdk", "otel"))
        return False
    return True


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
