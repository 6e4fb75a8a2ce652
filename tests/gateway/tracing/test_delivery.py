"""Traces and their collector: when there are any, and a collector that is down, slow, or comes back."""

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from searchr1.gateway.tracing import export
from searchr1.gateway.tracing.opening import is_wanted, open_tracing
from tests.gateway.conftest import Stage
from tests.gateway.tracing.conftest import traced_stage
from tests.support.otlp_receiver import OtlpReceiver

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        (ENDPOINT, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, True),
        (ENDPOINT | {"OTEL_SDK_DISABLED": "True"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"}, False),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "otlp"}, True),
        (ENDPOINT | {"OTEL_TRACES_EXPORTER": "zipkin"}, False),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            True,
        ),
    ],
)
def test_the_standard_variables_say_whether_runs_are_traced(environ: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environ) is wanted


async def test_without_a_collector_nothing_of_opentelemetry_is_opened() -> None:
    async with open_tracing({}, content=True) as tracing:
        assert tracing is None


WITHOUT = """
import logging, sys
logging.basicConfig()
sys.modules["opentelemetry.sdk"] = None
import searchr1.gateway.app
from searchr1.gateway.tracing.opening import is_wanted
print(is_wanted({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}))
print("opentelemetry.exporter" in sys.modules, "searchr1.gateway.tracing.tracing" in sys.modules)
"""


@pytest.mark.process
def test_where_opentelemetry_is_not_installed_the_log_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False", "False"]
    assert "pip install '.[otel]'" in done.stderr


async def run_once(stage: Stage) -> None:
    answer = await stage.client.post("/v1/research", json={"question": "Which currency is used in Mali?"})
    assert answer.json()["status"] == "completed"


@pytest.fixture
def silent(collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[OtlpReceiver]:
    """A collector in front of which a port stands that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        monkeypatch.setattr(export, "CLOSE_WITHIN_S", 0.2)
        yield collector
    # A process would have ended; what it leaves here would still write to the log of the next test.
    for thread in threading.enumerate():
        if thread.name in ("traces-end", "OtelBatchSpanRecordProcessor"):
            thread.join()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == export.__name__]


async def test_runs_and_the_end_do_not_wait_for_a_collector_that_never_answers(
    silent: OtlpReceiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with traced_stage() as stage:
        for _ in range(3):
            await run_once(stage)
    assert "The last traces were not delivered within 0.2 s" in warnings(caplog)
    assert silent.raw == []


async def test_a_queue_that_is_full_drops_spans_and_no_run(
    silent: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Its logger says nothing where a gateway's log was set up in this process, and lets a line through once in
    # 20 seconds, over all tests.
    caplog.set_level(logging.WARNING, "opentelemetry.sdk._shared_internal")
    for once in logging.getLogger("opentelemetry.sdk._shared_internal").filters:
        monkeypatch.setattr(once, "last_log", None, raising=False)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "2")
    async with traced_stage() as stage:
        for _ in range(4):
            await run_once(stage)
    assert any("Queue full" in record.getMessage() for record in caplog.records)
    assert silent.raw == []


async def test_the_log_says_once_that_spans_are_lost_and_once_that_they_are_not(
    collector: OtlpReceiver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    caplog.set_level(logging.WARNING, "searchr1")
    collector.status = 400
    async with traced_stage() as stage:
        for _ in range(3):
            await run_once(stage)
            async with asyncio.timeout(20):
                while not warnings(caplog):  # noqa: ASYNC110 (the exporter is a thread)
                    await asyncio.sleep(0.01)
        collector.status = 200
        await run_once(stage)
    told = warnings(caplog)
    assert len(told) == 2
    assert "Traces are lost" in told[0]
    assert "takes traces again" in told[1]
    assert collector.named("invoke_agent")
