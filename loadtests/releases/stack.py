"""Two releases side by side: a gateway of each, before one engine whose answers are known, with one Redis."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.paced_stack import paced_engine
from loadtests.processes import ROOT, free_port, searchr1
from loadtests.soak.stack import Program
from searchr1.demo.bundle import CHECKPOINT
from tests.engines.vllm.fake_vllm import MODEL
from tests.support.redis_server import run_redis

TENANT_KEY, PLAIN_KEY = "acme-key-of-two-releases", "alpha-key-of-two-releases"
_SETTINGS = {
    "SEARCHR1_API_KEYS": PLAIN_KEY,
    "SEARCHR1_TENANT_KEYS": f'{{"acme": ["{TENANT_KEY}"]}}',
    "SEARCHR1_CACHE": "false",
    "SEARCHR1_DRAIN_S": "0",
    "SEARCHR1_RESUME_GRACE_S": "60",
}


@dataclass(frozen=True)
class Release:
    """A gateway of one release."""

    name: str
    """``old`` or ``new``."""
    url: str
    program: Program


@contextmanager
def running_releases(
    old: Path, folder: Path, settings: Mapping[str, str], *, pause_s: float
) -> Iterator[tuple[Release, Release]]:
    """Start both, the older one from the checkout ``old``, and end them with the block.

    Logs are kept in ``folder``; the engine waits ``pause_s`` before each chunk.
    """
    with ExitStack() as stack:
        redis = stack.enter_context(run_redis())
        search = stack.enter_context(paced_engine(folder, tokens_per_s=50, num_tokens=1))
        port = free_port()
        command = [sys.executable, "-m", "loadtests.faults.engine", "--port", str(port)]
        command += ["--fault-file", str(folder / "no-fault"), "--pause-s", str(pause_s)]
        engine = Program(command, port, ready="/health", log=folder / "engine.log")
        stack.callback(engine.stop)
        given = {**_SETTINGS, "SEARCHR1_REDIS_URL": redis.url, **settings}
        arguments = ["--engine-url", engine.start().url, "--model", MODEL, "--tokenizer", str(CHECKPOINT)]
        arguments += ["--retriever", f"{search.url}/retrieve"]
        releases = []
        for name, checkout in (("old", old), ("new", ROOT)):
            program = _gateway(checkout, arguments, folder / f"{name}.log")
            stack.callback(program.stop)
            releases.append(Release(name, program.start({**given, **_code_of(checkout)}).url, program))
        yield releases[0], releases[1]


def told_version(checkout: Path) -> str:
    """Return what the command of a checkout says of its version.

    ``GET /version`` tells what is installed, which is one and the same for both.
    """
    return subprocess.check_output(
        _in(checkout, "--version"), env={**os.environ, **_code_of(checkout)}, text=True
    ).strip()


def _gateway(checkout: Path, arguments: list[str], log: Path) -> Program:
    port = free_port()
    command = _in(checkout, "serve", "--port", str(port), *arguments)
    return Program(command, port, ready="/readyz", log=log, timeout_s=120)


def _in(checkout: Path, *arguments: str) -> list[str]:
    # Each from its own folder, so that nothing of the other is found there.
    return ["env", "-C", str(checkout), *searchr1(*arguments)]


def _code_of(checkout: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{checkout}/server{os.pathsep}{checkout}/client"}
