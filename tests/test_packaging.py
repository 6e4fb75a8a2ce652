"""Both distributions, built as pip would build them, hold what they must and nothing else, and what is said of the
Pythons that they run on is said everywhere."""

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
from typing import Any

import pytest
from packaging.requirements import Requirement

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


def project(folder: Path = ROOT) -> dict[str, Any]:
    """What the pyproject.toml in ``folder`` holds."""
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


PYTHONS = [
    line.rpartition(" ")[2]
    for line in project()["project"]["classifiers"]
    if line.startswith("Programming Language :: Python :: 3.")
]
LOCKS = sorted(path.name for path in (ROOT / "requirements").glob("*.lock"))


def minor(python: str) -> int:
    return int(python.partition(".")[2])


def applies(line: Requirement, python: str) -> bool:
    """Tell whether a requirement counts on the platform of ``make setup``, with the latest release of a Python."""
    there: dict[str, str] = {
        "implementation_name": "cpython",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "python_full_version": f"{python}.99",
        "python_version": python,
        "sys_platform": "linux",
    }
    return line.marker is None or line.marker.evaluate(there)


def locked(lock: str, python: str) -> dict[str, str]:
    """Name to version, of what a lock file installs for one Python."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    lines = map(Requirement, re.findall(r"^([a-z0-9].*) \\$", text, flags=re.MULTILINE))
    return {line.name: str(line.specifier).removeprefix("==") for line in lines if applies(line, python)}


def test_every_file_names_the_same_pythons() -> None:
    setup, lock = ((ROOT / "scripts" / name).read_text(encoding="utf-8") for name in ("setup", "lock"))
    oldest, newest = PYTHONS[0], PYTHONS[-1]
    assert sorted(PYTHONS, key=minor) == PYTHONS
    assert 'pythons="{}"'.format(" ".join(reversed(PYTHONS))) in setup
    assert f"--python-version {oldest} " in lock
    assert f"python_full_version < '3.{minor(newest) + 1}'" in lock
    assert "for tag in {}; do".format(" ".join(f"cp3{minor(python)}" for python in PYTHONS[1:])) in lock
    for folder in (ROOT, CLIENT):
        assert project(folder)["project"]["requires-python"] == f">={oldest}"
        assert project(folder)["project"]["classifiers"] == project()["project"]["classifiers"]
    tools = project()["tool"]
    assert tools["mypy"]["python_version"] == oldest
    assert tools["ruff"]["target-version"] == f"py3{minor(oldest)}"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_every_direct_dependency_for_every_python(python: str) -> None:
    asked = project()["project"]
    extras = asked["optional-dependencies"]
    # `vllm` is the CUDA build, which is not locked.
    lines = [*asked["dependencies"], *(line for extra in extras if extra != "vllm" for line in extras[extra])]
    wanted = {line.name.lower().replace("_", "-") for line in map(Requirement, lines) if applies(line, python)}
    assert wanted - {"searchr1"} - set(locked("dev.lock", python)) == set()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_one_set_of_pins_for_all_pythons(lock: str) -> None:
    first, *others = (locked(lock, python) for python in PYTHONS)
    assert first
    assert [{name for name in other if first.get(name, other[name]) != other[name]} for other in others] == [
        set() for _ in others
    ]


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if "torch" in locked(lock, PYTHONS[0])])
def test_the_cpu_build_of_torch_is_locked_for_every_python(lock: str) -> None:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    (entry,) = re.findall(r"^torch==\S+\+cpu \\\n((?:    --hash=\S+(?: \\)?\n)+)", text, flags=re.MULTILINE)
    assert entry.count("--hash=") >= len(PYTHONS), "torch was locked where only some of its wheels were at hand"


def test_openmp_is_locked_with_what_its_wheel_for_linux_needs() -> None:
    pins = locked("dev.lock", PYTHONS[0])
    assert pins["intel-openmp"] == pins["intel-cmplr-lib-ur"]
    lock = (ROOT / "scripts" / "lock").read_text(encoding="utf-8")
    assert 'requires-dist = ["intel-cmplr-lib-ur=={}"]'.format(pins["intel-openmp"]) in lock
