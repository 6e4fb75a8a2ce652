"""Marks by what a test needs beyond this process, and the fast tier, which is every test without such a mark.

A test carries its marks itself, by its module's ``pytestmark`` or a decorator; those that follow from its folder or
from a fixture are added here. ``Watch`` fails a test that starts a program without such a mark.
"""

import ast
from collections.abc import Collection
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
HEAVY = frozenset({"vllm", "redis", "torch", "browser", "process", "slow"})
"""Marks that the fast tier leaves out; pyproject.toml says what each means."""
OF_FOLDER = {
    "clients": "process",
    "deploy": "process",
    "engines/transformers": "torch",
    "page": "browser",
    "trainer": "torch",
}
"""Folders below ``tests`` whose tests all need the same."""
OF_FIXTURE = {
    "browser": "browser",
    "demo": "vllm",
    "http_engine": "vllm",
    "local_engine": "vllm",
    "model_dir": "torch",
    "own_redis": "redis",
    "qwen_folder": "slow",
    "redis": "redis",
    "shared_redis": "redis",
    "vllm_server": "vllm",
}
"""Fixtures that start something, write a model with torch, or compute for long."""
_STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn")
_QUICK_PROGRAMS = frozenset({"fc-list", "git", "uname"})
"""Also matplotlib's question for fonts, which it asks once on a machine."""
_LARGE_MODULES = frozenset({"torch", "vllm"})


def marks_of(path: Path, fixtures: Collection[str] = ()) -> set[str]:
    """Return the heavy marks that follow from a test's folder and fixtures."""
    folders = {mark for folder, mark in OF_FOLDER.items() if (TESTS / folder) in (path, *path.parents)}
    return folders | {OF_FIXTURE[name] for name in fixtures if name in OF_FIXTURE}


def is_heavy_whole(path: Path) -> bool:
    """Tell, without importing it, whether every test in a folder or module is heavy."""
    return bool(marks_of(path) or (path.suffix == ".py" and own_marks(path.read_text(encoding="utf-8")) & HEAVY))


def own_marks(source: str) -> set[str]:
    """Return the names of the marks in a module's ``pytestmark``."""
    if "pytestmark" not in source:
        return set()
    values = [
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets)
    ]
    return {node.attr for value in values for node in ast.walk(value) if isinstance(node, ast.Attribute)}


class Watch:
    """Audit hook that raises when a test without a heavy mark starts a program, or a fast session imports torch."""

    def __init__(self, *, fast: bool) -> None:
        self._fast = fast
        self._test: pytest.Item | None = None

    def begin(self, test: pytest.Item) -> None:
        """Hold ``test`` to its marks from here on."""
        self._test = test

    def end(self) -> None:
        """Hold nothing to anything, as between tests."""
        self._test = None

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event == "import":
            if self._fast and arguments[0] in _LARGE_MODULES:
                raise RuntimeError(
                    f"{arguments[0]} is imported by a test without a mark for it (tests/support/tiers.py)"
                )
        elif event in _STARTS and self._test is not None and not _is_quick(arguments):
            own = {mark.name for mark in self._test.iter_markers()}
            if not own & HEAVY:
                raise RuntimeError(
                    f"{self._test.nodeid} starts a program without a mark for it (tests/support/tiers.py)"
                )


def _is_quick(arguments: tuple[object, ...]) -> bool:
    return bool(arguments) and Path(str(arguments[0])).name in _QUICK_PROGRAMS
