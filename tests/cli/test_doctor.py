"""The command ``searchr1 doctor``, and ``searchr1 serve --check``: what is printed, and the exit status."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.demo.bundle import CHECKPOINT

WELL = f"""
model = "{CHECKPOINT}"
engine = "transformers"
retriever = "http://127.0.0.1:9/retrieve"
port = 0
api_keys = ["a-key-of-some-length-0123456789"]
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("SEARCHR1_"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "searchr1.toml"
    path.write_text(WELL)
    path.chmod(0o600)
    return path


def test_what_is_well_exits_with_0(config: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--no-search", "--config", str(config)])
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert any("model" in line and "62 tensors" in line for line in lines)


def test_what_is_wrong_exits_with_1_and_says_what_to_do(config: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--config", str(config)])
    assert done.exit_code == 1
    lines = done.output.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("wrong"))
    assert "search retrieve" in lines[at]
    assert "127.0.0.1:9" in lines[at]
    assert "-> see whether it is up" in lines[at + 1]


def test_json_holds_the_same(config: Path) -> None:
    done = CliRunner().invoke(app, ["doctor", "--json", "--config", str(config)])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert told["ok"] is False
    [wrong] = [finding for finding in told["findings"] if finding["verdict"] == "wrong"]
    assert (wrong["check"], wrong["fix"] != "") == ("search retrieve", True)


def test_settings_that_are_refused_are_a_finding(config: Path) -> None:
    config.write_text(WELL + "prot = 1\n")
    done = CliRunner().invoke(app, ["doctor", "--config", str(config)])
    assert done.exit_code == 1
    [line, *_] = done.output.splitlines()
    assert line.startswith("wrong")
    assert f"{config}: prot is no setting; did you mean port?" in line


def test_a_check_starts_nothing_and_warns(config: Path) -> None:
    config.write_text(WELL + 'open = true\nrewrite_model = "m"\n')
    config.chmod(0o644)
    done = CliRunner().invoke(app, ["serve", "--check", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert "The settings can work." in done.output
    for part in ("SEARCHR1_OPEN has no effect", "SEARCHR1_REWRITE_MODEL has no effect", "can be read by others"):
        assert part in done.output


def test_a_check_refuses_what_a_start_would_refuse(config: Path) -> None:
    config.write_text(WELL.replace("api_keys", "# api_keys") + 'host = "0.0.0.0"\n')
    done = CliRunner().invoke(app, ["serve", "--check", "--config", str(config)])
    assert done.exit_code == 1
    assert "everyone who reaches 0.0.0.0" in str(done.exception)
