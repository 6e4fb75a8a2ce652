"""docs/guides/data.md against the command that it describes."""

import re
import shlex
from pathlib import Path

import typer

from searchr1.cli.main import app
from searchr1.data.sources.registry import named_sources

DOCS = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
PREPARE = COMMANDS["data"].commands["prepare"]


def test_the_table_has_every_option() -> None:
    rows = [line for line in DOCS.splitlines() if line.startswith("| `--")]
    described = {option for row in rows for option in re.findall(r"`(--[a-z-]+)", row.split("|")[1])}
    shown = [parameter for parameter in PREPARE.params if not getattr(parameter, "hidden", False)]
    assert described == {option for parameter in shown for option in parameter.opts if option[:2] == "--"}


def test_the_examples_are_commands() -> None:
    console = re.search(r"```console\n(.*?)```", DOCS, flags=re.DOTALL)
    assert console is not None
    for line in console[1].splitlines():
        program, name, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
        assert program == "searchr1"
        command = COMMANDS[name]
        if name == "data":
            command, arguments = command.commands[arguments[0]], arguments[1:]
        assert command.make_context(name, arguments).params


def test_every_named_source_has_a_row() -> None:
    first_cells = "".join(re.findall(r"^\| (`[^|]+) \|", DOCS, flags=re.MULTILINE))
    for source in named_sources():
        names = {name for name in re.findall(r"[\w-]+", source.hint) if source.claims(name)}
        assert names
        assert {name for name in names if f"`{name}`" not in first_cells} == set()
