"""A real vLLM HTTP server as a child process, set up for tests: quick to start, small, exact."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.processes import VLLM_ENVIRONMENT, free_port, running, vllm_server

_ARGUMENTS = (
    *("--served-model-name", "tiny", "--dtype", "float32", "--max-num-seqs", "64", "--enforce-eager"),
    *("--kv-cache-memory-bytes", str(256 * 2**20), "--scheduling-policy", "priority"),
    *("--enable-prompt-tokens-details", "--shutdown-timeout", "1"),
)
_TAKES_WEIGHTS = ("--worker-extension-cls", "searchr1.engines.vllm.worker.WorkerExtension")


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
def run_vllm(
    model_dir: Path, log: Path, *, block_size: int = 32, takes_weights: bool = False, port: int | None = None
) -> Iterator[VllmServer]:
    """Serve ``model_dir`` on 127.0.0.1 until the block ends, by default on a port that is free.

    What it prints goes to ``log``.
    """
    port = port or free_port()
    more, environment = (_TAKES_WEIGHTS, {"VLLM_SERVER_DEV_MODE": "1"}) if takes_weights else ((), {})
    command = vllm_server(model_dir, port, "--block-size", str(block_size), *_ARGUMENTS, *more)
    with running(command, port, ready="/health", log=log, environment=VLLM_ENVIRONMENT | environment) as server:
        yield VllmServer(server.url, "tiny", model_dir, block_size, server.pid)
