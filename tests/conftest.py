"""What every test may use: a tiny real model, and one vLLM and one demo for the session: a start takes a minute."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchr1.tokenizer import Tokenizer
from tests.demo_server import Demo, run_demo
from tests.vllm_server import VllmServer, run_vllm


def pytest_configure() -> None:
    # A shell without job control starts what runs in its background with Ctrl-C ignored, and processes hand that on:
    # those that the tests interrupt would not notice.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that real engines serve: ``SEARCHR1_TEST_MODEL``, or a random one that is written here."""
    if chosen := os.environ.get("SEARCHR1_TEST_MODEL"):
        return Path(chosen)
    from tests.tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer(model_dir: Path) -> Tokenizer:
    """The tokenizer of ``model_dir``."""
    return Tokenizer.load(str(model_dir))


@pytest.fixture(scope="session")
def vllm_server(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The session's vLLM over HTTP."""
    with run_vllm(model_dir, tmp_path_factory.mktemp("vllm") / "log.txt") as server:
        yield server


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The session's demo server."""
    with run_demo(tmp_path_factory.mktemp("demo")) as running:
        yield running
