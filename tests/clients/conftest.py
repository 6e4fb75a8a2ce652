"""The clients' environments, and the gateways that they are run against."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gateway.conftest import Stage
from tests.gateway.threaded import threaded_stage

from .stages import DyingEngine, retriever

NODE = Path(__file__).parent / "node"
VENV = Path(__file__).parents[2] / ".venv-clients"


@pytest.fixture(scope="session", autouse=True)
def environments() -> None:
    """Node's packages, as the lock file says; the Python environment has to be there."""
    assert (VENV / ".setup").exists(), "run scripts/setup-clients"
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".installed"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NODE, check=True)
        installed.write_bytes(lock.read_bytes())


@pytest.fixture(scope="module")
def answering() -> Iterator[Stage]:
    """A gateway that searches once and answers."""
    with threaded_stage(retriever=retriever()) as stage:
        yield stage


@pytest.fixture(scope="module")
def dying() -> Iterator[Stage]:
    """A gateway whose engine dies after the first search of a run."""
    with threaded_stage(engine=DyingEngine(), retriever=retriever()) as stage:
        yield stage
