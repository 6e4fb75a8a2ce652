"""What every test may use: a tiny real model, and one vLLM and one demo for the session: a start takes a minute."""

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from searchr1.tokenizer import Tokenizer
from tests.support.demo_server import Demo, run_demo
from tests.support.tiers import HEAVY, Watch, is_heavy_whole, marks_of
from tests.support.vllm_server import VllmServer, run_vllm

# Others use the machine too: no example has a time limit, and none fails because it was slowly drawn.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_watch = pytest.StashKey[Watch]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="only tests that need nothing beyond this process")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_watch] = Watch(fast=config.getoption("fast"))
    sys.addaudithook(config.stash[_watch])
    if hasattr(config, "workerinput"):  # of xdist: each worker has a core, and threads that wait for each other spin
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell without job control starts what runs in its background with Ctrl-C ignored, and processes hand that on:
    # those that the tests interrupt would not notice.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    # Importing what the fast tier leaves out takes longer than the tier: torch and vLLM are among it.
    return True if config.getoption("fast") and is_heavy_whole(collection_path) else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name in sorted(marks_of(item.path, getattr(item, "fixturenames", ()))):
            item.add_marker(name)
    if config.getoption("fast"):
        heavy = [item for item in items if HEAVY.intersection(mark.name for mark in item.iter_markers())]
        config.hook.pytest_deselected(items=heavy)
        left_out = set(heavy)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch = item.config.stash[_watch]
    watch.begin(item)
    try:
        return (yield)
    finally:
        watch.end()


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that real engines serve: ``SEARCHR1_TEST_MODEL``, or a random one that is written here."""
    if chosen := os.environ.get("SEARCHR1_TEST_MODEL"):
        return Path(chosen)
    from tests.support.tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """The tokenizer of ``model_dir``, for which no model is written."""
    if chosen := os.environ.get("SEARCHR1_TEST_MODEL"):
        return Tokenizer.load(chosen)
    from tests.support.tiny_model import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture(scope="session")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen's own vocabulary as a Hugging Face folder; to work out its merges takes seconds."""
    from tests.golden import qwen

    folder = tmp_path_factory.mktemp("qwen")
    qwen.write_folder(folder)
    return folder


@pytest.fixture(scope="session")
def qwen_tokenizer(qwen_folder: Path) -> Tokenizer:
    """The tokenizer of ``qwen_folder``, which takes seconds to read."""
    return Tokenizer.load(str(qwen_folder))


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
