"""Servers in processes of their own, for benchmarks and end-to-end tests: started, waited for, and always stopped."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from searchr1.engines.vllm.args import one_process_environment

ROOT = Path(__file__).parents[1]
"""This checkout."""


class DidNotStartError(Exception):
    """A server ended or stayed silent; the message ends with its log."""


@dataclass
class Server:
    """A running server."""

    url: str
    pid: int
    left_processes: bool = False
    """After it was stopped: whether processes that it had started were still there. They are killed then."""
    exit_code: int | None = None
    """After it was stopped; negative where a signal ended it."""


_PORTS = range(10_100, 32_768)
"""Below those that Linux gives to connections and to listeners that ask for any; above 10080, which browsers refuse."""


def free_port(*, also_above: int = 0) -> int:
    """A port of 127.0.0.1 that nobody listens on, nor on the one that lies ``also_above`` it.

    It stays free until a server has started on it, and while one that was killed is to start again: nobody else gets
    it by chance.
    """
    while True:
        port = secrets.choice(_PORTS[: len(_PORTS) - also_above])
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", port))
            if also_above:
                other.bind(("127.0.0.1", port + also_above))
            return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    *,
    ready: str,
    log: Path,
    timeout_s: float = 300.0,
    environment: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Server]:
    """Run ``command`` until the block ends, entering it once ``GET {ready}`` answers 200.

    It is stopped by SIGTERM, and its whole process group killed if anything of it is left. Raises
    ``DidNotStartError``.
    """
    url = f"http://{host}:{port}"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
    server = Server(url, process.pid)
    try:
        _wait_until_ready(process, url + ready, log, timeout_s)
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        server.left_processes = _outlived(process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        server.exit_code = process.wait(timeout=10)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout_s: float) -> None:
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, timeout=5).status_code == 200:
                return
        time.sleep(0.25)
    raise DidNotStartError(f"{url} did not answer:\n{log.read_text(errors='replace')[-4000:]}")


def _outlived(group: int) -> bool:
    """Whether a process of ``group`` is still there after a moment: helpers end when their parent's pipe does."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return False
        time.sleep(0.1)
    return True


def program_path(name: str) -> str | None:
    """Return the path of a program that ``scripts/setup-deploy`` installs or that is on the PATH; None without one."""
    return shutil.which(name, path=f"{ROOT}/.venv-deploy/bin{os.pathsep}{os.environ.get('PATH', '')}")


def searchr1(*arguments: str) -> list[str]:
    """The ``searchr1`` command of this environment."""
    return [sys.executable, "-m", "searchr1.cli", *arguments]


def vllm_server(model: Path, port: int, *arguments: str) -> list[str]:
    """vLLM's own HTTP server over a checkpoint folder; ``VLLM_ENVIRONMENT`` belongs to it."""
    entry = "vllm.entrypoints.launchers.api_server.entry"
    return [
        *(sys.executable, "-m", entry, "--model", str(model), "--host", "127.0.0.1", "--port", str(port)),
        # A prompt that is computed in parts kills vLLM 0.32 on CPU if its request has a seed.
        *("--distributed-executor-backend", "uni", "--no-enable-chunked-prefill", *arguments),
    ]


VLLM_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    **one_process_environment(),
}
