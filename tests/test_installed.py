"""The distributions as somebody installs them: the wheel in a fresh environment, with what it says that it needs."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import pytest

from loadtests.paced_stack import paced_engine
from loadtests.processes import free_port, running
from searchr1.demo.bundle import CHECKPOINT
from searchr1_client import __version__
from tests.test_packaging import CLIENT, ROOT, build

pytestmark = pytest.mark.process


def needed(name: str, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    """The distributions that ``name`` asks for with ``extras``, as they are here; those of other platforms are not."""
    for line in distribution(name).requires or ():
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        found = re.match(r"([\w.-]+)(?:\[([\w,-]+)\])?", requirement)
        if found and (extra is None or extra[1] in extras):
            yield found[1], frozenset((found[2] or "").split(",")) - {""}


def closure(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The distributions of this environment that one needs, with all that those need."""
    seen: set[tuple[str, frozenset[str]]] = set()
    wanted = list(needed(name, extras))
    while wanted:
        one = wanted.pop()
        if one in seen:
            continue
        try:
            more = list(needed(*one))
        except ModuleNotFoundError:  # for another platform or an older Python
            continue
        seen.add(one)
        wanted += more
    return {found for found, _ in seen}


class Installed:
    """An environment that holds a wheel, and links to the distributions of this environment that it needs."""

    def __init__(self, folder: Path, wheel: Path, dependencies: set[str]) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], timeout=120, check=True)
        self.bin = folder / "bin"
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--no-index", "--no-compile", wheel], timeout=120, check=True)
        [self.packages] = folder.glob("lib/python*/site-packages")
        for name in dependencies:
            self._link(name)

    def _link(self, name: str) -> None:
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
            target = self.packages / top
            if not target.exists():
                target.symlink_to(Path(str(found.locate_file(top))).resolve())

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, elsewhere than in this checkout and without its paths."""
        words = [str(self.bin / command[0]), *command[1:]]
        return subprocess.run(
            words, cwd=self.bin, env={"PATH": str(self.bin)}, capture_output=True, text=True, timeout=120, check=False
        )


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The SDK alone."""
    folder = tmp_path_factory.mktemp("client")
    return Installed(
        folder / "env", build(CLIENT, folder)[1], closure("httpx") | closure("pydantic") | {"httpx", "pydantic"}
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))[1]


@pytest.fixture(scope="module")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The server's distribution without an extra: the command line."""
    return Installed(tmp_path_factory.mktemp("plain"), wheel, closure("searchr1"))


@pytest.fixture(scope="module")
def server(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The same with the extra ``server``: a gateway."""
    return Installed(tmp_path_factory.mktemp("server"), wheel, closure("searchr1", frozenset({"server"})))


def test_the_sdk_needs_nothing_of_the_server(client: Installed) -> None:
    program = (
        "import importlib.util, json, sys, searchr1_client as sdk\n"
        "client = sdk.SearchR1(base_url='http://127.0.0.1:9')\n"
        "absent = [name for name in ('searchr1', 'fastapi', 'typer', 'tokenizers') if importlib.util.find_spec(name)]\n"
        "print(json.dumps([sdk.__version__, sdk.__file__, absent]))"
    )
    done = client.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    version, file, present = json.loads(done.stdout)
    assert (version, present) == (__version__, [])
    assert Path(file).is_relative_to(client.packages)


def test_the_command_tells_its_version_and_explains_itself(plain: Installed) -> None:
    assert plain.run("searchr1", "--version").stdout == f"searchr1 {__version__}\n"
    for words in ([], ["serve"], ["ask"], ["eval"], ["export"]):
        done = plain.run("searchr1", *words, "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage:" in done.stdout


def test_what_lacks_an_extra_says_which(plain: Installed) -> None:
    done = plain.run("searchr1", "serve", "--model", "m", "--retriever", "tavily:")
    assert done.returncode != 0
    [line] = done.stderr.splitlines()
    assert ".[server]" in line


def test_the_gateway_serves_its_page_its_document_and_a_run(server: Installed, tmp_path: Path) -> None:
    program = (
        "import json, sys, httpx, searchr1_client as sdk\n"
        "url = sys.argv[1]\n"
        "paths = ['/', '/docs', '/assets/app.js', '/openapi.json', '/metrics']\n"
        "get = httpx.Client(base_url=url, timeout=60).get\n"
        "statuses = [get(path).status_code for path in paths]\n"
        "run = sdk.SearchR1(base_url=url).research.create('Which capital has Mali?')\n"
        "print(json.dumps([statuses, get('/version').json()['version'], run.answer]))"
    )
    port = free_port()
    with paced_engine(tmp_path, tokens_per_s=500, num_tokens=8) as engine:
        command = [
            *(str(server.bin / "searchr1"), "serve", "--engine-url", engine.url, "--model", "paced"),
            *("--tokenizer", str(CHECKPOINT), "--retriever", "http://127.0.0.1:9/retrieve", "--port", str(port)),
        ]
        with running(command, port, ready="/readyz", log=tmp_path / "log", environment={"PYTHONPATH": ""}) as gateway:
            done = server.run("python", "-c", program, gateway.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[200] * 5, __version__, "Bamako"]


def test_the_demos_model_is_in_the_wheel(server: Installed) -> None:
    program = (
        "from searchr1.demo.bundle import CHECKPOINT\n"
        "from searchr1.tokenizer import Tokenizer\n"
        "Tokenizer.load(str(CHECKPOINT))\n"
        "print(CHECKPOINT, (CHECKPOINT / 'model.safetensors').stat().st_size)"
    )
    done = server.run("python", "-c", program)
    assert done.returncode == 0, done.stderr
    folder, size = done.stdout.split()
    assert Path(folder).is_relative_to(server.packages)
    assert int(size) == (CHECKPOINT / "model.safetensors").stat().st_size
