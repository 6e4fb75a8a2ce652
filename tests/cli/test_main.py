"""The command as a whole: every subcommand explains itself, and asking for help loads nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from searchr1.cli.main import app, main

HEAVY = ("fastapi", "httpx", "numpy", "searchr1_client", "tokenizers", "torch", "uvicorn", "vllm")


def lines_of_words() -> list[list[str]]:
    """The words of each command, from ``[]`` to ``["train", "run"]``."""
    found: list[list[str]] = [[]]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        found.append([name])
        found.extend([name, inner] for inner in getattr(command, "commands", {}))
    return found


def test_the_commands_are_these() -> None:
    assert [" ".join(words) for words in lines_of_words()[1:]] == [
        "serve",
        "ask",
        "eval",
        "eval table",
        "index",
        "index build",
        "retriever",
        "retriever serve",
        "data",
        "data prepare",
        "train",
        "train run",
        "train plot",
        "train warmup",
        "export",
        "export verl",
        "demo",
        "demo build",
    ]


@pytest.mark.parametrize("words", lines_of_words(), ids=" ".join)
def test_every_command_explains_itself(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_page_names_every_command_that_does_something() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    groups = {"index", "retriever", "data", "train", "demo"}
    commands = {" ".join(words) for words in lines_of_words() if words} - groups
    assert {command for command in commands if f"`searchr1 {command}`" not in page} == set()


@pytest.mark.process
def test_help_loads_only_what_it_shows() -> None:
    program = (
        "import sys\nfrom searchr1.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.process
@pytest.mark.parametrize("module", ["searchr1.cli", "searchr1.cli.main"])
def test_the_command_runs_by_its_module(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "train", "run", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"TOP_K": "0"}, "SEARCHR1_TOP_K: Input should be greater than or equal to 1"),
        ({"PROFILE": "x"}, "SEARCHR1_PROFILE: there is no profile 'x'"),
        ({"CACHE_HARD_TTL_S": "5"}, "cache_soft_ttl_s and cache_hard_ttl_s: the soft TTL must be"),
        ({"SEARCH_COSTS_USD": "x"}, "SEARCHR1_SEARCH_COSTS_USD: it must be JSON"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"SEARCHR1_{name}", value)
    monkeypatch.setattr(sys, "argv", ["searchr1", "serve", "--model", "m", "--retriever", "tavily:"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"searchr1: a setting is wrong: {message}")
