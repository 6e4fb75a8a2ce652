"""A collector of OpenTelemetry in a process of its own: the program of the package ``rotel``."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STARTS_WITHIN_S = 30.0


@contextmanager
def running_collector(program: Path, port: int, *, forward_to: str | None) -> Iterator[str]:
    """Run a collector that receives OTLP over HTTP at ``port``; yield its base URL.

    It passes spans on to the base URL ``forward_to``, or drops them. ``port + 1`` is its port for gRPC.
    """
    exporter = ["--exporter", "blackhole"]
    if forward_to is not None:
        exporter = ["--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-compression", "none"]
        exporter += ["--otlp-exporter-endpoint", forward_to, "--batch-timeout", "200ms"]
    places = ["--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{port + 1}"]
    process = subprocess.Popen([program, "start", *places, *exporter])
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.05)
    raise SystemExit("the collector did not start")
