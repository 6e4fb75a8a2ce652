"""docs/guides/training.md against the commands, fields and functions that it describes."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from searchr1.cli.main import app
from searchr1.loop.types import Status
from searchr1.trainer.rl.algorithms.base import ALGORITHMS
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.rewards import REWARDS, Outcome, reward_named

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "guides" / "training.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def console_lines() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", DOCS, flags=re.DOTALL)
    joined = "".join(blocks).replace("\\\n", "")
    return [line.removeprefix("$ ") for line in joined.splitlines()]


def test_the_examples_are_commands() -> None:
    seen = set()
    for line in console_lines():
        words = [word for word in shlex.split(line, comments=True) if "=" not in word or word.startswith("--")]
        if words[0] != "searchr1":
            continue
        command, arguments = COMMANDS[words[1]], words[2:]
        while hasattr(command, "commands"):
            if arguments[0] not in command.commands and "run" not in command.commands:
                break  # Options of the group itself, as of searchr1 export.
            name = arguments[0] if arguments[0] in command.commands else "run"
            arguments = arguments[1:] if arguments[0] in command.commands else arguments
            command = command.commands[name]
        known = {option for parameter in command.params for option in parameter.opts}
        for word in arguments:
            assert not word.startswith("--") or word in known, f"{line}: {word}"
        seen.add(words[1])
    assert seen == {"demo", "index", "train", "serve", "export"}


def test_the_configuration_is_one() -> None:
    text = re.search(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert text is not None
    shown = TrainConfig.model_validate(yaml.safe_load(text[1]))
    assert (shown.algorithm, shown.rollout.group_size) == ("grpo", 5)


@pytest.mark.parametrize("name", re.findall(r"`(?:configs/)?([\w.-]+\.yaml)`", DOCS))
def test_the_files_that_it_names_are_there(name: str) -> None:
    assert (ROOT / "configs" / name).is_file()


@pytest.mark.parametrize("field", ["clip_high", "over", "scale_by_std", "gae_over", "importance_cap"])
def test_the_options_that_it_names_are_fields(field: str) -> None:
    assert f"`{field}`" in DOCS
    assert field in TrainConfig.model_fields["loss"].annotation.model_fields  # type: ignore[union-attr]


def test_the_reward_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = re.search(r"```python\n(.*?)```", DOCS, flags=re.DOTALL)
    assert text is not None
    (tmp_path / "my_rewards.py").write_text(text[1], "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    reward = reward_named("my_rewards:short_and_right")
    assert reward(Outcome("q", ("Mali",), "Mali", Status.COMPLETED, ())) == 1.0


@pytest.mark.parametrize("name", REWARDS.all())
def test_every_reward_is_named(name: str) -> None:
    assert f"`{name}`" in DOCS.partition("## A reward of your own\n")[2].partition("```")[0]


@pytest.mark.parametrize("name", ALGORITHMS.all())
def test_every_algorithm_has_a_row(name: str) -> None:
    assert f"\n| [`{name}`](../../server/searchr1/trainer/rl/algorithms/{name}.py) |" in DOCS
