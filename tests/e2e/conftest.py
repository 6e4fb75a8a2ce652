"""The demo as a user starts it: ``searchr1 serve --demo`` in its own process, with real vLLM and the real index."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

START_TIMEOUT_S = 280.0


@dataclass(frozen=True)
class Demo:
    """A running demo server."""

    url: str
    data_dir: Path
    process: subprocess.Popen[bytes]


def start_demo(data_dir: Path, log: Path, **environment: str) -> Demo:
    """Start the demo on a free port and wait until it is ready. Stop it with ``stop_demo``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "searchr1.cli",
        "serve",
        "--demo",
        "--port",
        str(port),
        "--data-dir",
        str(data_dir),
    ]
    # A quick start matters more than quick tokens here.
    env = {**os.environ, "SEARCHR1_ENFORCE_EAGER": "true", **environment}
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True)
    demo = Demo(f"http://127.0.0.1:{port}", data_dir, process)
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{demo.url}/readyz", timeout=5).status_code == 200:
                return demo
        time.sleep(0.5)
    stop_demo(demo)
    pytest.fail(f"the demo did not start:\n{log.read_text(errors='replace')[-4000:]}")


def stop_demo(demo: Demo) -> None:
    """Stop the server as an operator would, and its whole process group if that does not help."""
    demo.process.terminate()
    try:
        demo.process.wait(timeout=60)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(demo.process.pid, signal.SIGKILL)
        demo.process.wait(timeout=10)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """One demo server for all tests of this folder."""
    folder = tmp_path_factory.mktemp("demo")
    running = start_demo(folder / "data", folder / "serve.log")
    yield running
    stop_demo(running)
