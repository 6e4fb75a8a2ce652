"""Rooms, the packages of the source: no circle among them, torch in a few, no common file name without a reason."""

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.test_imports import (
    ALL_IMPORTS,
    IN_PROCESS_ENGINE,
    MODULES,
    OURS,
    ROOT,
    Import,
    imports_of,
    loaded_by,
    within,
)

PURE = ("searchr1.loop", "searchr1.scheduling")
"""State machines: the caller does the I/O, tells the time and rolls the dice."""
WITH_TORCH = ("searchr1.trainer", "searchr1.evaluation", "searchr1.engines.transformers", *IN_PROCESS_ENGINE)
TORCH = ("torch", "transformers", "safetensors.torch", "vllm", "peft", "accelerate")
REASONS = {
    "base": "the contract of each seam",
    "config": "the settings of one room's work",
    "errors": "each boundary raises its own, and the shared ones lie below all",
    "factory": "opening one of a kind by its configuration",
    "files": "what a room keeps on disk, and how any room does",
    "keys": "the command, what can be a client's key, and the keys of providers",
    "metrics": "serving, scoring and training are measured apart",
    "registry": "the things of one seam by name, and the class that all registries are",
    "train": "the command, and the three kinds of training that it starts",
}
"""Why a file name may stand in more than two folders."""


def circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the nodes of a circle, none if there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    """Return the top-level package or module of ours that ``module`` is in; the SDK is one room."""
    return ".".join(module.split(".")[:2]) if within(module, "searchr1") else module.partition(".")[0]


def module_of(target: str) -> str:
    """Return the module that an imported dotted name is, or is in."""
    while target not in MODULES:
        target = target.rpartition(".")[0]
    return target


def edges_between(imports: Iterable[Import], *, rooms: bool) -> dict[str, set[str]]:
    """Return who imports whom of ours, by room or by module."""
    edges: dict[str, set[str]] = defaultdict(set)
    for found in imports:
        if found.top in OURS:
            importer, target = found.importer, module_of(found.target)
            if rooms:
                importer, target = room(importer), room(target)
            if importer != target:
                edges[importer].add(target)
    return edges


def test_no_rooms_import_each_other_in_a_circle() -> None:
    edges = edges_between(ALL_IMPORTS, rooms=True)
    assert "searchr1.loop" in edges["searchr1.gateway"]
    assert circle(edges) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports inside functions and for types count too: the one who reads the code goes in a circle all the same."""
    edges = edges_between(ALL_IMPORTS, rooms=False)
    assert "searchr1.loop.machine" in edges["searchr1.rollout"]
    assert circle(edges) == []


@pytest.mark.parametrize("late", ["def late():", "if TYPE_CHECKING:"])
def test_a_circle_is_seen(late: str) -> None:
    back = imports_of(f"{late}\n    from searchr1.gateway.app import create_app", "searchr1.loop.machine")
    found = circle(edges_between([*ALL_IMPORTS, *back], rooms=True))
    assert {"searchr1.loop", "searchr1.gateway"} <= set(found)
    found = circle(edges_between([*ALL_IMPORTS, *back], rooms=False))
    assert {"searchr1.loop.machine", "searchr1.gateway.app"} <= set(found)


def foreign(imports: Iterable[Import], part: str) -> list[str]:
    """Return the imports of ``part`` from anywhere but itself, ``errors``, ``registry`` and the standard library."""
    return [
        str(found)
        for found in imports
        if within(found.importer, part)
        and found.top not in sys.stdlib_module_names
        and not within(found.target, part, "searchr1.errors", "searchr1.registry")
    ]


def impure(imports: Iterable[Import], part: str) -> list[str]:
    """Return the imports of ``part`` by which it could do I/O, wait, or read a clock."""
    forbidden = ("asyncio", "threading", "socket", "os", "io", "pathlib", "subprocess", "time", "random", "logging")
    return [str(found) for found in imports if within(found.importer, part) and within(found.target, *forbidden)]


@pytest.mark.parametrize("part", [*PURE, "searchr1.errors"])
def test_state_machines_use_the_standard_library_alone_and_do_no_io(part: str) -> None:
    assert foreign(ALL_IMPORTS, part) == []
    assert impure(ALL_IMPORTS, part) == []


@pytest.mark.parametrize("part", PURE)
def test_what_makes_a_state_machine_impure_is_seen(part: str) -> None:
    bad = imports_of("import asyncio\nfrom searchr1.driver import drive\nimport searchr1.errors", f"{part}.bad")
    assert foreign(bad, part) == [f"{part}.bad:2 imports searchr1.driver.drive"]
    assert impure(bad, part) == [f"{part}.bad:1 imports asyncio"]


@pytest.mark.parametrize("part", ["searchr1.trainer", "searchr1.evaluation"])
def test_training_and_scoring_know_no_gateway(part: str) -> None:
    imports = [found for found in ALL_IMPORTS if within(found.importer, part)]
    assert imports
    assert [str(found) for found in imports if within(found.target, "searchr1.gateway")] == []


def test_torch_stays_where_it_belongs() -> None:
    users = [found for found in ALL_IMPORTS if within(found.target, *TORCH)]
    assert any(within(found.importer, "searchr1.trainer") for found in users)
    assert [str(found) for found in users if not within(found.importer, *WITH_TORCH)] == []


@pytest.mark.parametrize("entry", ["searchr1.cli.main", "searchr1.gateway.app"])
def test_what_serves_loads_no_torch(entry: str) -> None:
    loaded = [found for name in loaded_by(entry) for found in MODULES[name] if found.runs_at_import]
    assert loaded
    assert [str(found) for found in loaded if within(found.target, *TORCH)] == []


def test_a_file_name_in_more_than_two_folders_has_a_reason() -> None:
    folders: dict[str, list[Path]] = defaultdict(list)
    for root in ("server/searchr1", "client/searchr1_client"):
        for path in (ROOT / root).rglob("*.py"):
            if path.stem != "__init__":
                folders[path.stem].append(path.relative_to(ROOT))
    common = {name for name, paths in folders.items() if len(paths) > 2}
    assert common == set(REASONS), "give a file the word for its subject, or write down why its name is common"
