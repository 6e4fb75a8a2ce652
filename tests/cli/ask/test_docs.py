"""docs/reference/cli.md and ``--help`` say what the command does."""

import re
from pathlib import Path

import typer
from typer.testing import CliRunner

from searchr1.cli.ask.exit_codes import ExitCode
from searchr1.cli.main import app

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def options_of(command: str) -> set[str]:
    """The option names of a command."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    parameters = group.commands[command].params
    names = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    return {name for name in names if name.startswith("--")} - {"--help"}


def test_every_exit_code_is_described() -> None:
    rows = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert [int(code) for code in rows] == sorted(ExitCode)
    shown = CliRunner().invoke(app, ["ask", "--help"], env={"COLUMNS": "300", "NO_COLOR": "1"}).output
    codes = " ".join(shown.split()).partition("Exit codes: ")[2].split("; ")
    assert [int(code.split()[0]) for code in codes] == sorted(ExitCode)


def test_every_option_is_described() -> None:
    assert {option for option in options_of("ask") if f"`{option}" not in PAGE} == set()


def test_eval_takes_the_options_of_a_run_too() -> None:
    section = PAGE.partition("## Options of a run")[2].partition("\n## ")[0]
    shared = set(re.findall(r"`(--[a-z-]+)`", section))
    assert len(shared) >= 12
    assert shared <= options_of("eval") & options_of("ask")
