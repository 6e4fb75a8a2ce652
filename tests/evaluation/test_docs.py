"""docs/evaluation.md against the command that it describes."""

import re
import shlex
from pathlib import Path

import typer

from searchr1.cli.main import app
from searchr1.evaluation.methods.registry import all_methods

DOCS = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
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
    code = re.search(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    assert code is not None
    exec(compile(code[1], "docs/evaluation.md", "exec"), {"__name__": "docs"})
