"""``searchr1 export verl``: the folder that it writes, and what it refuses to write."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
import typer
import yaml

from searchr1.cli.export import export_app
from searchr1.data.sets import VERL_PREFIX
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.export.verl.command import VerlExport, export_verl
from searchr1.export.verl.settings import VERL_VERSION
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from tests.data.files import write_lines
from tests.export.test_verl_settings import KEYS, flat
from tests.test_repository import install_lines

pytestmark = pytest.mark.torch

FILES = {"train.parquet", "test.parquet", "reward.py", "agent_loop.yaml", "verl.yaml", "README.md", "run.sh"}


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data folder with a small Atlas."""
    for split, count in (("train", 5), ("validation", 3)):
        write_lines(
            tmp_path / "data" / "atlas" / f"questions-{split}.jsonl",
            *(
                {"id": f"atlas-{split}-{i}", "question": f"Where is {i} {split}", "golden_answers": [str(i)]}
                for i in range(count)
            ),
        )
    return tmp_path / "data"


def run_file(folder: Path, **changes: Any) -> Path:
    fields: dict[str, Any] = {
        "algorithm": "ppo",
        "model": "Qwen/Qwen2.5-3B",
        "data": "atlas",
        "retriever": "http://127.0.0.1:8000/retrieve",
        "out_dir": "runs/one",
        "reward": "format_v0_3",
        "eval_data": "atlas",
        "num_eval_questions": 2,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(fields | changes), "utf-8")
    return path


def exported(world: Path, *, force: bool = False, overrides: dict[str, Any] | None = None, **changes: Any) -> Path:
    out = world.parent / "verl"
    config = run_file(world.parent, **changes)
    export_verl(VerlExport(config, out, overrides or {}, data_dir=world, force=force), progress=False)
    return out


def test_the_folder(world: Path) -> None:
    out = exported(world)
    assert {path.name for path in out.iterdir()} == FILES
    train, test = (pq.read_table(out / name).to_pylist() for name in ("train.parquet", "test.parquet"))
    assert (len(train), len(test)) == (5, 2)
    assert train[0]["prompt"] == [{"role": "user", "content": SEARCH_R1.prompt("Where is 0 train")}]
    assert train[0]["reward_model"]["ground_truth"]["target"] == ["0"]
    assert train[0]["data_source"] == f"{VERL_PREFIX}atlas"
    assert 'REWARD = "format_v0_3"' in (out / "reward.py").read_text("utf-8")
    assert os.access(out / "run.sh", os.X_OK)


def test_every_key_in_file_and_script_is_verls(world: Path) -> None:
    out = exported(world)
    written = yaml.safe_load((out / "verl.yaml").read_text("utf-8"))
    assert written.pop("defaults") == ["ppo_trainer", "_self_"]
    assert written.pop("hydra") == {"searchpath": ["pkg://verl.trainer.config"]}
    assert {name for name, _ in flat(written)} <= KEYS
    lines = [line.strip() for line in (out / "run.sh").read_text("utf-8").splitlines()]
    named = {line.partition("=")[0] for line in lines if line.endswith("\\") and "=" in line}
    assert len(named) == 8
    assert named <= KEYS


def test_the_loop_that_is_named_can_be_imported(world: Path) -> None:
    (loop,) = yaml.safe_load((exported(world) / "agent_loop.yaml").read_text("utf-8"))
    module, _, name = loop["_target_"].rpartition(".")
    assert hasattr(importlib.import_module(module), name)
    assert loop["retriever"] == "http://127.0.0.1:8000/retrieve"


def test_the_script_hands_verl_its_own_folder(world: Path, tmp_path: Path) -> None:
    """With a python3 that prints its arguments in verl's place, from another working directory."""
    out = exported(world)
    stand_in = tmp_path / "bin" / "python3"
    stand_in.parent.mkdir()
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    done = subprocess.run(
        ["bash", str(out / "run.sh"), "trainer.nnodes=2"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        env={"PATH": f"{stand_in.parent}:/usr/bin:/bin", "NUM_GPUS": "4"},
    )
    arguments = done.stdout.splitlines()
    assert arguments[:6] == ["-m", "verl.trainer.main_ppo", "--config-path", str(out), "--config-name", "verl"]
    assert f"reward.custom_reward_function.path={out / 'reward.py'}" in arguments
    assert "trainer.n_gpus_per_node=4" in arguments
    assert f"trainer.rollout_data_dir={out / 'rollouts'}" in arguments
    assert f"trainer.validation_data_dir={out / 'evaluations'}" in arguments
    assert arguments[-1] == "trainer.nnodes=2"


def test_without_test_questions_the_training_ones_are_repeated(world: Path) -> None:
    out = exported(world, eval_data=None)
    assert pq.read_table(out / "test.parquet").num_rows == 2
    assert "no `eval_data`" in (out / "README.md").read_text("utf-8")
    assert yaml.safe_load((out / "verl.yaml").read_text("utf-8"))["trainer"]["test_freq"] == -1


def test_the_folder_says_for_which_verl_it_is_and_what_to_install(world: Path) -> None:
    readme = (exported(world) / "README.md").read_text("utf-8")
    assert f"verl) {VERL_VERSION}" in readme
    assert "`pip install .` in a checkout of searchr1" in readme
    assert install_lines(readme) == ["."], "the package is on no index"


def test_an_export_is_replaced_only_if_asked(world: Path) -> None:
    out = exported(world)
    with pytest.raises(ConfigurationError, match="--overwrite"):
        exported(world)
    exported(world, force=True, reward="sub_em")
    assert 'REWARD = "sub_em"' in (out / "reward.py").read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"reward": "my.module:reward"}, ConfigurationError, "my.module:reward"),
        ({"retriever": "index:data/atlas/index"}, ConfigurationError, "retriever serve"),
        ({"algorithm": "reinforce"}, ConfigurationError, "algorithm"),
        ({"data": "missing.parquet"}, DatasetError, "missing.parquet"),
    ],
)
def test_what_cant_be_exported_leaves_nothing(
    world: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        exported(world, **changes)
    assert not list((world.parent / "verl").glob("*"))


def test_the_command_takes_other_data_and_retriever(world: Path) -> None:
    config = run_file(world.parent, data="missing.parquet", retriever="index:x")
    out = world.parent / "verl"
    command = [sys.executable, "-m", "searchr1.cli", "export", "verl", str(config), "--out", str(out)]
    options = ["--data", "atlas", "--data-dir", str(world), "--retriever", "http://127.0.0.1:9/retrieve"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5 questions to train on, 2 to test on" in done.stdout
    again = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    assert "Traceback" not in again.stderr


def test_the_page_has_every_option() -> None:
    docs = (Path(__file__).parents[2] / "docs" / "guides" / "verl.md").read_text("utf-8")
    command = typer.main.get_command(export_app).commands["verl"]  # type: ignore[attr-defined]
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    options = {option for parameter in shown for option in parameter.opts if option.startswith("--")}
    assert {option for option in options if f"`{option}" not in docs} == set()
