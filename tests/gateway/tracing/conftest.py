"""A gateway whose runs are traced to a receiver on this machine."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from searchr1.gateway.tracing.opening import open_tracing
from tests.gateway.conftest import Stage, running_stage
from tests.gateway.runs.test_question import rewriting_stage
from tests.support.otlp_receiver import OtlpReceiver, receiving

CLIENT_TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"
SAMPLED = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"
UNSAMPLED = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-00"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """A receiver that the environment names as the collector of traces."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver


@asynccontextmanager
async def traced_stage(*, content: bool = False, rewrites: bool = False, **given: Any) -> AsyncIterator[Stage]:
    """Serve as ``running_stage`` does, with traces; all of them have been delivered when the block has ended.

    With ``rewrites`` the served model rewrites conversations.
    """
    serving = rewriting_stage if rewrites else running_stage
    async with open_tracing(os.environ, content=content) as tracing:
        assert tracing is not None
        async with serving(tracing=tracing, **given) as stage:
            yield stage
