"""docs/guides/starts.md against the commands that it describes."""

import re
import shlex
from pathlib import Path

import typer

from searchr1.cli.main import app

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs" / "guides" / "starts.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_the_table_has_every_option() -> None:
    rows = [line for line in DOCS.splitlines() if line.startswith("| `--")]
    described = {option for row in rows for option in re.findall(r"`(--[a-z-]+)", row.split("|")[1])}
    shown = COMMANDS["data"].commands["demonstrations"].params
    spelled = {option for parameter in shown for option in (*parameter.opts, *parameter.secondary_opts)}
    assert described == {option for option in spelled if option.startswith("--")}


def test_the_examples_are_commands() -> None:
    console = re.search(r"```console\n(.*?)```", DOCS, flags=re.DOTALL)
    assert console is not None
    names = []
    for line in console[1].replace("\\\n", "").splitlines():
        program, *words = shlex.split(line.removeprefix("$ "), comments=True)
        assert program == "searchr1"
        command = COMMANDS[words.pop(0)]
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word for word in words if word.startswith("--")} <= known
        names.append(command.name)
    assert names == ["from-gguf", "build", "demonstrations", "demonstrations", "sft", "serve"]


def test_the_files_that_it_names_are_there() -> None:
    for name in re.findall(r"configs/[\w./-]+\.yaml", DOCS):
        assert (ROOT / name).is_file()
