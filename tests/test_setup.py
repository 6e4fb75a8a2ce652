"""Which Python ``scripts/setup`` takes, and what it says where there is none."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="elsewhere it stops before it looks"
    ),
]

ROOT = Path(__file__).parent.parent
TOOLS = ("bash", "cat", "cut", "dirname", "env", "flock", "grep", "sha256sum", "uname")
OLD = "#!/bin/sh\n[ \"$1\" != --version ] || echo 'Python 3.9.2'\n"
WITHOUT_VENV = """#!/bin/sh
case "$2" in *ensurepip*) exit 1 ;; *) echo 3.12 ;; esac
"""
"""What Debian's python3.12 answers without the package python3.12-venv."""
TAKEN = """#!/bin/sh
if [ "$1" = -m ]; then echo "took $0"; exit 3; fi
exec {python} "$@"
"""
"""This Python, up to the point where an environment would be made."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What ``scripts/setup`` reads, in a folder with a PATH of its own that has no Python."""
    for name in ("scripts/setup", "requirements/dev.lock", "pyproject.toml", "client/searchr1_client/_version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for name in TOOLS:
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or name)
    return tmp_path


def add(checkout: Path, name: str, script: str) -> None:
    (checkout / "bin" / name).write_text(script)
    (checkout / "bin" / name).chmod(0o755)


def run(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "scripts" / "setup"],
        env={"PATH": str(checkout / "bin"), **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_python_it_says_how_to_get_one(checkout: Path) -> None:
    add(checkout, "python3", OLD)
    done = run(checkout)
    assert done.returncode == 1
    assert "none of Python 3.13, 3.12, 3.11 was found that can be used; python3 is Python 3.9.2" in done.stderr
    for way in ("sudo apt install python3 python3-venv", "sudo dnf install python3.13", "uv python install 3.13"):
        assert way in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_named_with_its_package(checkout: Path) -> None:
    add(checkout, "python3.12", WITHOUT_VENV)
    done = run(checkout)
    assert done.returncode == 1
    assert (
        "'python3.12' is Python 3.12, but has no venv. On Debian and Ubuntu: sudo apt install python3.12-venv"
        in done.stderr
    )


def test_one_without_venv_is_passed_over(checkout: Path) -> None:
    add(checkout, "python3.12", WITHOUT_VENV)
    add(checkout, "python3", TAKEN.format(python=sys.executable))
    assert run(checkout).stdout.startswith("took ")


def test_the_named_python_is_taken_or_refused(checkout: Path) -> None:
    add(checkout, "python3.13", TAKEN.format(python=sys.executable))
    add(checkout, "mine", TAKEN.format(python=sys.executable))
    assert run(checkout, PYTHON="mine").stdout == f"took {checkout}/bin/mine\n"
    done = run(checkout, PYTHON="python3.12")
    assert done.returncode == 1
    assert "PYTHON is 'python3.12', none of Python 3.13, 3.12, 3.11 that can be used." in done.stderr


def test_an_environment_of_another_checkout_is_left_alone(checkout: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "kept").touch()
    (checkout / ".venv").symlink_to(theirs)
    refused = run(checkout)
    assert refused.returncode == 1
    assert ".venv is a link: remove it" in refused.stderr
    assert (theirs / "kept").exists()
