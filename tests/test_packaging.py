"""Both distributions, built as pip would build them, hold what they must and nothing else."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from searchr1_client import __version__

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "client"

BUILD = """
import json, sys
from hatchling.build import build_sdist, build_wheel
print(json.dumps([build_sdist(sys.argv[1]), build_wheel(sys.argv[1])]))
"""


def build(project: Path, out: Path) -> tuple[Path, Path]:
    """The sdist and the wheel of ``project``."""
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(out)], cwd=project, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    sdist, wheel = json.loads(done.stdout.splitlines()[-1])
    return out / sdist, out / wheel


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def packaged(wheel: Path) -> set[str]:
    """What a wheel installs, without its metadata folder."""
    return {name for name in names(wheel) if ".dist-info/" not in name}


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


def sources(package: Path) -> set[str]:
    """Every file of a package in this checkout, by the path it is installed under."""
    return {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(ROOT, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def built_client(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(CLIENT, tmp_path_factory.mktemp("client"))


@pytest.mark.process
def test_the_wheel_holds_both_packages_whole(built: tuple[Path, Path]) -> None:
    wheel = built[1]
    assert packaged(wheel) == sources(ROOT / "server" / "searchr1") | sources(CLIENT / "searchr1_client")
    assert packaged(wheel) >= {
        "searchr1/py.typed",
        "searchr1_client/py.typed",
        "searchr1/gateway/web/index.html",
        "searchr1/demo/checkpoint/model.safetensors",
    }
    assert metadata(wheel).get_all("License-File") == ["LICENSE", "NOTICE"]


@pytest.mark.process
def test_the_wheel_installs_the_command(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        name = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "searchr1 = searchr1.cli.main:main" in archive.read(name).decode()


@pytest.mark.process
def test_the_sdk_alone_holds_only_the_sdk(built_client: tuple[Path, Path]) -> None:
    wheel = built_client[1]
    assert packaged(wheel) == sources(CLIENT / "searchr1_client")
    assert "searchr1_client/py.typed" in packaged(wheel)
    assert {line.split(">=")[0] for line in metadata(wheel).get_all("Requires-Dist") or []} == {"httpx", "pydantic"}
    assert (CLIENT / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@pytest.mark.process
@pytest.mark.parametrize("which", ["built", "built_client"])
def test_the_sdist_builds_the_same_wheel(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    sdist, wheel = request.getfixturevalue(which)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    assert names(build(folder, tmp_path)[1]) == names(wheel)


@pytest.mark.process
def test_both_distributions_have_the_version_of_the_sdk(
    built: tuple[Path, Path], built_client: tuple[Path, Path]
) -> None:
    assert {metadata(wheel)["Version"] for wheel in (built[1], built_client[1])} == {__version__}
    told = {
        "version" in tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        for folder in (ROOT, CLIENT)
    }
    assert told == {False}, "the version is written in client/searchr1_client/_version.py alone"


def test_the_changelog_has_a_dated_section_of_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)$", changelog, flags=re.MULTILINE)


@pytest.mark.process
@pytest.mark.parametrize("which", ["built", "built_client"])
def test_an_index_would_take_both_files(which: str, request: pytest.FixtureRequest) -> None:
    """What ``twine check --strict`` holds, without twine; ``scripts/release`` runs it."""
    sdist, wheel = request.getfixturevalue(which)
    assert metadata(wheel)["Description-Content-Type"] == "text/markdown"
    assert str(metadata(wheel).get_payload()).strip()
    twine = ROOT / ".venv-release" / "bin" / "twine"
    if not twine.exists():
        pytest.skip("needs scripts/release to have set itself up")
    done = subprocess.run(
        [twine, "check", "--strict", sdist, wheel], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
