"""The built wheel, alone with what it declares, in a virtual environment of its own."""

import asyncio
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import searchr1_client
from tests.gateway.conftest import running_stage

CLIENT = Path(__file__).parents[2] / "client"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
USE = """
import importlib.util, sys
from searchr1_client import SearchR1
assert importlib.util.find_spec("searchr1") is None
assert sys.prefix in sys.modules["searchr1_client"].__file__
with SearchR1(base_url=sys.argv[1]) as client, client.research.stream("Which currency is used in Mali?") as stream:
    print("".join(stream.text_stream), stream.get_final_run().status)
"""


def needed(names: set[str]) -> set[str]:
    """``names`` and the distributions that those need here, and so on."""
    waiting, found = list(names), set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        for requirement in importlib.metadata.requires(name) or []:
            applies = "extra ==" not in requirement and "sys_platform" not in requirement
            if applies and not re.search(r"python_version *< *.3\.(\d|1[01]).", requirement):
                waiting.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    return found


def copy_in(name: str, packages: Path) -> None:
    """Put a distribution of this environment into another one."""
    for file in importlib.metadata.files(name) or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), packages / file)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and what it declares."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=CLIENT, check=True, capture_output=True, text=True
    )
    home = folder / "venv"
    venv.create(home, with_pip=False)
    packages = next((home / "lib").glob("python*/site-packages"))
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name in needed({requirement.split(">")[0] for requirement in project["dependencies"]}):
        copy_in(name, packages)
    interpreter = home / "bin" / "python"
    wheel = str(folder / built.stdout.split()[-1])
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], check=True)
    return interpreter


@pytest.mark.process
async def test_it_works_alone(python: Path) -> None:
    async with running_stage() as stage:
        use = await asyncio.create_subprocess_exec(
            python, "-I", "-W", "error", "-c", USE, stage.url,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await use.communicate()
    assert (out.decode(), err.decode()) == ("West African CFA franc completed\n", "")


@pytest.mark.process
def test_it_imports_nothing_that_it_does_not_need(python: Path) -> None:
    code = "import sys, searchr1_client; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([python, "-I", "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"rich", "click", "trio", "importlib_metadata", "fastapi", "unittest"} & set(loaded)


def test_its_version_is_read_from_the_package() -> None:
    pyproject = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))
    assert pyproject["project"]["dynamic"] == ["version"]
    path = CLIENT / pyproject["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{searchr1_client.__version__}"' in path.read_text(encoding="utf-8")
