"""Real Helm, in a process of its own, and what the chart makes of values."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT, VALUES_FILES, Helm

NODE = Path(__file__).parent / "node"


@pytest.fixture(scope="session")
def helm() -> Iterator[Helm]:
    """Helm as a program that renders and lints."""
    program = [sys.executable, str(ROOT / "deploy" / "helm" / "render.py")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Helm(process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def custom_resources() -> Path:
    """Node's packages with the schemas of custom resources, as the lock file says. Returns their folder."""
    lock, installed = NODE / "package-lock.json", NODE / "node_modules" / ".installed"
    if not installed.exists() or installed.read_bytes() != lock.read_bytes():
        subprocess.run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NODE, check=True
        )
        installed.write_bytes(lock.read_bytes())
    return NODE


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for ``values_file`` with every values file beside the chart."""
    if "values_file" in metafunc.fixturenames:
        metafunc.parametrize("values_file", VALUES_FILES, ids=[path.stem for path in VALUES_FILES])
