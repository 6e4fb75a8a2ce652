"""The demo as a user starts it: ``searchr1 serve --demo`` in its own process, with real vLLM and the real index."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from loadtests.processes import free_port, running, searchr1


@dataclass(frozen=True)
class Demo:
    """A running demo server."""

    url: str
    data_dir: Path


@contextlib.contextmanager
def run_demo(folder: Path) -> Iterator[Demo]:
    """Serve from ``folder`` until the block ends; no process is left then."""
    port = free_port()
    command = searchr1("serve", "--demo", "--port", str(port), "--data-dir", str(folder / "data"))
    # Tests are quicker with a quick start than with quick tokens.
    with running(
        command, port, ready="/readyz", log=folder / "log", environment={"SEARCHR1_ENFORCE_EAGER": "true"}
    ) as server:
        yield Demo(server.url, folder / "data")
    assert not server.left_processes
