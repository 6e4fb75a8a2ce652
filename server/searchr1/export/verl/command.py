"""``searchr1 export verl``: the folder from which verl runs what a ``TrainConfig`` describes."""

from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from searchr1.data.prepare import PrepareConfig, PrepareReport, prepare
from searchr1.data.sources import DATA_DIR
from searchr1.errors import ConfigurationError
from searchr1.export.verl import reward as reward_file
from searchr1.export.verl.settings import VERL_VERSION, check, departures, loop_settings, settings
from searchr1.files import whole_file
from searchr1.trainer.rl.config import TrainConfig, load_config

CONFIG = "verl.yaml"
LOOP_CONFIG = "agent_loop.yaml"
TRAIN, TEST = "train.parquet", "test.parquet"


@dataclass(frozen=True, slots=True)
class VerlExport:
    """The training run to export, and the folder to write."""

    config: Path
    """File of a training run, as ``searchr1 train`` takes it."""
    out: Path
    """The folder to write."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Other values of the configuration's fields, by dotted name."""
    data_dir: Path = DATA_DIR
    """Folder that holds ``atlas``."""
    force: bool = False
    """Replace an export that is there."""


def export_verl(export: VerlExport, *, progress: bool = True) -> str:
    """Write the folder and return what it holds, in a line. ``run.sh`` is written last, so where it is, everything is.

    Raises:
        ConfigurationError: the configuration is unsound or verl could not run it, or the folder can't be written.
        DatasetError: questions are missing or malformed.
    """
    config = load_config(export.config, export.overrides)
    check(config)
    if config.reward not in reward_file.REWARDS:
        known = ", ".join(reward_file.REWARDS)
        raise ConfigurationError(f"only {known} can be exported, not the reward {config.reward!r}")
    train = _questions(export, TRAIN, config.data, config.data_split, None, progress=progress)
    tested = (config.data, config.data_split) if config.eval_data is None else (config.eval_data, config.eval_split)
    test = _questions(export, TEST, *tested, config.num_eval_questions, progress=progress)
    for name, text in _texts(config, train.num_questions).items():
        with whole_file(export.out / name) as file:
            file.write(text.encode())
    (export.out / "run.sh").chmod(0o755)
    return (
        f"{export.out}: {train.num_questions:,} questions to train on, {test.num_questions:,} to test on; "
        f"start it with: bash {export.out / 'run.sh'}"
    )


def _questions(
    export: VerlExport, name: str, source: str, split: str, limit_each: int | None, *, progress: bool
) -> PrepareReport:
    wanted = PrepareConfig(
        sources=(source,),
        output=export.out / name,
        split=split,
        data_dir=export.data_dir,
        limit_each=limit_each,
        verl=True,
        force=export.force,
    )
    return prepare(wanted, progress=progress)


def _texts(config: TrainConfig, num_train_questions: int) -> dict[str, str]:
    hydra = {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"]},
        "defaults": ["ppo_trainer", "_self_"],
    }
    return {
        "reward.py": reward_text(config.reward),
        LOOP_CONFIG: yaml.safe_dump(loop_settings(config), sort_keys=False),
        CONFIG: yaml.safe_dump(hydra | settings(config, num_train_questions), sort_keys=False),
        "README.md": _readme(config),
        "run.sh": RUN,
    }


def reward_text(name: str) -> str:
    """Return the file that verl loads ``compute_score`` from, for the reward called ``name``."""
    text = resources.files("searchr1.export.verl").joinpath("reward.py").read_text("utf-8")
    return text.replace(f'REWARD = "{reward_file.REWARD}"', f'REWARD = "{name}"', 1)


RUN = f"""#!/usr/bin/env bash
# Trains with verl what this folder describes. Arguments are verl's, such as trainer.n_gpus_per_node=4.
set -euo pipefail
here="$(cd "$(dirname "${{BASH_SOURCE[0]}}")" && pwd)"

exec python3 -m verl.trainer.main_ppo --config-path "$here" --config-name {Path(CONFIG).stem} \\
    data.train_files="$here/{TRAIN}" \\
    data.val_files="$here/{TEST}" \\
    actor_rollout_ref.rollout.agent.agent_loop_config_path="$here/{LOOP_CONFIG}" \\
    reward.custom_reward_function.path="$here/reward.py" \\
    trainer.n_gpus_per_node="${{NUM_GPUS:-8}}" \\
    trainer.default_local_dir="$here/checkpoints" \\
    trainer.rollout_data_dir="$here/rollouts" \\
    trainer.validation_data_dir="$here/evaluations" \\
    "$@"
"""


def _readme(config: TrainConfig) -> str:
    said = "\n".join(f"* {line}" for line in departures(config))
    return f"""# {config.out_dir.name}, for verl

Written by `searchr1 export verl` for [verl](https://github.com/verl-project/verl) {VERL_VERSION}; versions before 0.9
name some settings otherwise.

1. In verl's environment, on every node: `pip install .` in a checkout of searchr1, or `pip install` with the path of
   its wheel. It is on no package index. Its rollout is the one that `searchr1 serve` runs.
2. Have the retriever answer at `{config.retriever}`, from every node.
3. `NUM_GPUS=8 bash run.sh`. Further arguments are verl's own: `trainer.nnodes=2` on a Ray cluster of two machines
   that both see this folder.

| file | holds |
|---|---|
| `{TRAIN}`, `{TEST}` | questions, prompts and golden answers |
| `{CONFIG}` | the run, under verl's names |
| `{LOOP_CONFIG}` | the rollout: `<search>` and `<answer>` tags in the text, with their bounds; no tool calls |
| `reward.py` | `{config.reward}` as `compute_score`; needs the standard library alone |
| `run.sh` | starts verl with all of these |
| `checkpoints/` | written by verl: the last saves |
| `rollouts/`, `evaluations/` | written by verl: rollouts with their scores; none with `trainer.rollout_data_dir=null` |

## What verl does otherwise

{said}
* The parallel layout is verl's. Weights and optimizer states wait in the host's memory while vLLM samples, as in the
  reference's scripts; where the GPUs have room, `actor_rollout_ref.actor.fsdp_config.param_offload=false` and its like
  (`optimizer_offload`, `actor_rollout_ref.ref.fsdp_config`, `critic.fsdp`) save the way there and back.
* Checkpoints lie in `checkpoints/`, in verl's layout. This makes `merged`, for `searchr1 serve --model merged`:
  `python3 -m verl.model_merger merge --backend fsdp --target_dir merged --local_dir $CHECKPOINT`,
  where `$CHECKPOINT` is `checkpoints/global_step_{config.num_steps}/actor`.
"""
