"""The command as a whole: every subcommand explains itself, and asking for help loads nothing else."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from starlette.responses import Response
from typer.main import get_command
from typer.testing import CliRunner

from searchr1.cli.faults import EXTRAS, told
from searchr1.cli.main import app, main
from searchr1.cli.train import closing_line
from searchr1_client import __version__
from tests.evaluation.gateway.fake_gateway import FakeGateway, refusal

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
        "doctor",
        "ask",
        "eval",
        "eval table",
        "index",
        "index build",
        "retriever",
        "retriever serve",
        "keys",
        "keys create",
        "keys list",
        "keys revoke",
        "data",
        "data prepare",
        "data demonstrations",
        "model",
        "model from-gguf",
        "model merge",
        "model adapter",
        "train",
        "train run",
        "train sample",
        "train memory",
        "train plot",
        "train sft",
        "train warmup",
        "export",
        "export verl",
        "demo",
        "demo build",
        "demo build-wiki",
    ]


@pytest.mark.parametrize("words", lines_of_words(), ids=" ".join)
def test_every_command_explains_itself(words: list[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    assert done.exit_code == 0, done.output
    assert "Usage:" in done.output


def test_the_page_names_every_command_that_does_something() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    groups = {"index", "retriever", "keys", "data", "model", "train", "demo"}
    commands = {" ".join(words) for words in lines_of_words() if words} - groups
    assert {command for command in commands if f"`searchr1 {command}`" not in page} == set()


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.output) == (0, f"searchr1 {__version__}\n")


def test_every_package_of_an_extra_is_known_by_it() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    lines = [line for extra in EXTRAS.values() for line in project["optional-dependencies"][extra]]
    packages = {re.split(r"[>=\[]", line)[0].lower().replace("-", "_") for line in lines}
    imported = {"pystemmer": "Stemmer", "pyyaml": "yaml", "tavily_python": "tavily"}
    assert {imported.get(package, package) for package in packages - {project["name"]}} == set(EXTRAS)


@pytest.mark.parametrize("package", sorted(EXTRAS))
def test_a_package_that_is_missing_is_one_line(package: str) -> None:
    message = told(ModuleNotFoundError(f"No module named '{package}.inner'", name=f"{package}.inner"))
    install = f"pip install '.[{EXTRAS[package]}]' in a checkout of searchr1"
    assert message == f"this needs {package}, which is not installed: {install}"
    assert told(ModuleNotFoundError("No module named 'searchr1.bug'", name="searchr1.bug")) is None
    assert told(ValueError("a bug")) is None


LINE = '{"id": "a", "question": "q", "golden_answers": ["x"]}\n'
COMMANDS = {
    "ask": (["ask", "q"], 3),
    "eval": (["eval", "--dataset", "q.jsonl"], 1),
    "export": (["export", "--output", "out.jsonl"], 1),
}
ENVIRONMENTS = [
    {"ALL_PROXY": "socks5://127.0.0.1:1"},
    {"all_proxy": "socks://127.0.0.1:1/"},
    {"HTTPS_PROXY": "http://h:port"},
    {"NO_PROXY": "localhost,::1,fe80::/10", "HTTP_PROXY": "http://127.0.0.1:1"},
    {"SSL_CERT_FILE": "/nonexistent"},
]
AWAY, HERE = "http://gateway.invalid:8000", "http://127.0.0.1:9"


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=lambda environment: " ".join(environment))
@pytest.mark.parametrize("command", COMMANDS)
def test_an_environment_that_cannot_be_used_is_one_line(
    command: str,
    environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "q.jsonl").write_text(LINE)
    monkeypatch.chdir(tmp_path)
    words, code = COMMANDS[command]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for url, says in ((AWAY, next(iter(environment))), (HERE, "answers at")):
        monkeypatch.setattr("sys.argv", ["searchr1", *words, "--url", url])
        with pytest.raises(SystemExit) as left:
            main()
        ended = left.value.code
        told_lines = capsys.readouterr().err.splitlines() + ([ended] if isinstance(ended, str) else [])
        is_wrong_use = command != "ask" and url == AWAY
        assert ended == (2 if is_wrong_use else code)
        [line] = [line for line in told_lines if says in line]
        assert "Traceback" not in "".join(told_lines)
        assert "cannot be written" not in line


@pytest.mark.parametrize("status", [400, 418, 503])
@pytest.mark.parametrize("command", ["eval", "export"])
def test_servers_do_not_steer_the_terminal(
    command: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "\x1b]0;title\x07\x1b[2J\rgone \x9b31m\u202eevil\u2066"
    server = FakeGateway(None)  # type: ignore[arg-type]
    monkeypatch.setattr("searchr1.evaluation.gateway.asker.MAX_ATTEMPTS", 1)
    monkeypatch.setattr("searchr1.export.gateway.MAX_ATTEMPTS", 1)

    async def refused(_: dict[str, object]) -> Response:
        return refusal(status, hostile, param="seed")

    server.handler, server.models = refused, lambda: refusal(status, hostile)
    (tmp_path / "q.jsonl").write_text(LINE)
    monkeypatch.chdir(tmp_path)
    with server.serve():
        monkeypatch.setattr("sys.argv", ["searchr1", *COMMANDS[command][0], "--url", server.url])
        with pytest.raises(SystemExit) as left:
            main()
    shown = "".join(capsys.readouterr()) + str(left.value.code)
    assert left.value.code not in (0, None)
    assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2066")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_that_is_wanted_is_asked_for_in_the_commands_words(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = FakeGateway(None)  # type: ignore[arg-type]

    async def refused(_: dict[str, object]) -> Response:
        return refusal(401, "No API key was given.")

    server.handler, server.models = refused, lambda: refusal(401, "No API key was given.")
    server.runs = server.models
    (tmp_path / "q.jsonl").write_text(LINE)
    monkeypatch.chdir(tmp_path)
    with server.serve():
        monkeypatch.setattr("sys.argv", ["searchr1", *COMMANDS[command][0], "--url", server.url])
        with pytest.raises(SystemExit):
            main()
    assert capsys.readouterr().err.endswith("No API key was given. Here: --api-key-file FILE, or SEARCHR1_API_KEY\n")


def test_settings_that_are_no_json_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEARCHR1_TENANT_KEYS", '{"secret-key": ')
    monkeypatch.setattr("sys.argv", ["searchr1", "serve", "--model", "m", "--retriever", "http://127.0.0.1:1/retrieve"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("searchr1: ")
    assert "SEARCHR1_TENANT_KEYS" in line
    assert "secret" not in line


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


def test_a_training_file_that_is_not_there_is_told_before_torch_is_imported() -> None:
    done = CliRunner().invoke(app, ["train", "/nowhere/run.yaml"])
    assert done.exit_code == 2
    assert "does not exist" in done.output


WITHOUT_TORCH = """
import sys
from searchr1.cli.main import main

try:
    main()
finally:
    print("imported:", *{"torch", "transformers", "matplotlib"}.intersection(sys.modules))
"""
GRPO = Path("configs/atlas-grpo.yaml")


@pytest.mark.process
@pytest.mark.parametrize(
    ("more", "assignment", "message"),
    [
        ("", "optimzer.lr=1e-5", "optimzer: Extra inputs"),
        ("", "optimizer.learning_rate=1e-5", "optimizer.learning_rate: Extra inputs"),
        ("", "rollout.group_size=0", "rollout.group_size: "),
        ("", "rollout.engine=vlm", "rollout.engine: there is no engine 'vlm'"),
        ("", "loss.over=tokens", "loss.over: "),
        ("", "profile=x", "profile: there is no profile 'x'"),
        ("\nnum_step: 3\n", "num_steps=3", "num_step: Extra inputs"),
        ("\n - [", "num_steps=3", "can't be read as YAML"),
        ("", "num_steps", "--set takes NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_a_training_file_is_told_before_torch_is_imported(
    more: str, assignment: str, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(GRPO.read_text("utf-8") + more, "utf-8")
    command = [sys.executable, "-c", WITHOUT_TORCH, "train", str(file), "--set", assignment]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_a_training_run_ends_with_its_scores_and_what_to_do_next(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval_em": 0.25}\n{"step": 1}\n{"step": 2, "eval_em": 0.5}\n')
    line = closing_line(tmp_path, "--retriever index:x")
    assert line == (
        f"2 steps done, EM 0.250 before and 0.500 after. Serve the checkpoint with: "
        f"searchr1 serve --model {tmp_path / 'checkpoint'} --retriever index:x"
    )
    (tmp_path / "checkpoint-best").mkdir()
    best = closing_line(tmp_path, "--retriever index:x").removeprefix(line)
    assert best == f"\nThe one that scored best is {tmp_path / 'checkpoint-best'}"
    (tmp_path / "checkpoint-best").rmdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    assert closing_line(tmp_path, "--demo") == (
        f"1 steps done. Serve the checkpoint with: searchr1 serve --model {tmp_path / 'checkpoint'} --demo"
    )
