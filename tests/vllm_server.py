"""A real vLLM HTTP server as a child process, for tests and benchmarks."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_START_TIMEOUT_S = 240.0
_STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class VllmServer:
    """A server that answers."""

    url: str
    model: str
    """The name it serves."""
    model_dir: Path
    block_size: int
    """Tokens per block of the prefix cache."""
    pid: int


@contextlib.contextmanager
def run_vllm(model_dir: Path, log: Path, *, block_size: int = 32) -> Iterator[VllmServer]:
    """Serve ``model_dir`` on an ephemeral port of 127.0.0.1 until the block ends; what it prints goes to ``log``."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(model_dir)]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    command += ["--max-num-seqs", "64", "--block-size", str(block_size)]
    command += ["--kv-cache-memory-bytes", str(256 * 2**20), "--scheduling-policy", "priority", "--enforce-eager"]
    command += ["--enable-prompt-tokens-details", "--shutdown-timeout", "1"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            _wait_until_ready(process, url, log)
            yield VllmServer(url, "tiny", model_dir, block_size, process.pid)
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    ends_at = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < ends_at and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError), urllib.request.urlopen(f"{url}/health", timeout=2):
            return
        time.sleep(0.5)
    tail = log.read_text(errors="replace")[-4000:]
    raise RuntimeError(f"vLLM did not come up (exit code {process.poll()}):\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    # The engine core and its worker share the session of the server: none may outlive it.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
