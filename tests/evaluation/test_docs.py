"""docs/guides/evaluation.md against the command that it describes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from searchr1.cli.main import app
from searchr1.engines.scripted import ScriptedEngine
from searchr1.evaluation.baselines.trial import MethodOptions, Tools
from searchr1.evaluation.engine.answer import answer
from searchr1.evaluation.methods import registry
from searchr1.evaluation.methods.registry import all_methods
from searchr1.retrieval.fake import FakeRetriever
from searchr1.tokenizer import Tokenizer

DOCS = (Path(__file__).parents[2] / "docs" / "guides" / "evaluation.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
EVAL = typer.main.get_command(app).commands["eval"]  # type: ignore[attr-defined]


def test_the_examples_are_commands() -> None:
    console = re.search(r"```console\n(.*?)```", DOCS, flags=re.DOTALL)
    assert console is not None
    for line in console[1].splitlines():
        program, name, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        assert (program, name) == ("searchr1", "eval")
        command = EVAL
        if arguments[0] == "table":
            command, arguments = EVAL.commands["table"], arguments[1:]
        assert command.make_context(name, arguments).params


def test_every_option_that_is_named_exists() -> None:
    options = {option for command in (EVAL, EVAL.commands["table"]) for p in command.params for option in p.opts}
    assert set(re.findall(r"`(--[a-z-]+)", DOCS)) <= options


def test_every_method_is_described() -> None:
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCS, flags=re.MULTILINE)
    assert {method.name for method in all_methods()} <= set(rows)


def test_the_python_example_compiles_and_imports() -> None:
    exec(compile(PYTHON[0], "docs/guides/evaluation.md", "exec"), {"__name__": "docs"})


async def test_the_example_of_a_method_is_one(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    all_methods()
    monkeypatch.setattr(registry, "METHODS", registry.METHODS.copy())
    exec(compile(PYTHON[1], "docs/guides/evaluation.md", "exec"), {})
    tools = Tools(ScriptedEngine([" Bamako </answer>"], encode=tokenizer.encode), FakeRetriever({}), tokenizer)
    outcome = await answer("one-word", "Capital of Mali?", tools, MethodOptions(), session="s")
    assert (outcome.status, outcome.answer) == ("completed", "Bamako")
