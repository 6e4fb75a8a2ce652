"""What is written by a program is as that program would write it now."""

import subprocess
import sys

import pytest

from searchr1_client import __version__
from tests.deploy.manifests import CHART, ROOT, load


def test_generated_files_are_current() -> None:
    program = ROOT / "deploy" / "helm" / "generate.py"
    done = subprocess.run(
        [sys.executable, str(program), "--check"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0), "run deploy/helm/generate.py"


def test_every_value_is_described() -> None:
    def leaves(values: object, path: str) -> list[str]:
        if not isinstance(values, dict) or not values or path in described:
            return [path]
        return [leaf for name, part in values.items() for leaf in leaves(part, f"{path}.{name}".lstrip("."))]

    table = (CHART / "README.md").read_text("utf-8").partition("## Values")[2]
    described = {line.split("`")[1] for line in table.splitlines() if line.startswith("| `")}
    assert [path for path in leaves(load(CHART / "values.yaml"), "") if path not in described] == []


def test_the_chart_and_the_server_have_one_version() -> None:
    chart = load(CHART / "Chart.yaml")
    assert chart["version"] == chart["appVersion"] == __version__


@pytest.mark.slow
def test_checkov_finds_nothing() -> None:
    if not (ROOT / ".venv-checkov" / ".setup").exists():
        pytest.skip("needs scripts/check-manifests to have set itself up")
    done = subprocess.run([str(ROOT / "scripts" / "check-manifests")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
