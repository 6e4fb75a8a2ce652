"""Rollouts without training: what a run's steps would sample from its start policy, kept whole.

Rejection sampling is made of these, at the same budget as reinforcement learning: the same questions in the same steps,
as often each. ``searchr1 export --correct`` chooses the right ones, ``searchr1 train sft`` imitates them.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from searchr1.errors import ConfigurationError
from searchr1.files import whole_file
from searchr1.trainer.checkpoints import STATE, find_model
from searchr1.trainer.metrics import FILE as METRICS
from searchr1.trainer.rl.actor import open_actor
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.kept_rollouts import FOLDER, SAMPLED, KeptRollouts

_DECISIVE = ("model", "profile", "data", "data_split", "retriever", "reward", "seed", "rollout")
"""Settings that decide what is sampled: those of a folder must be the same whenever it is gone on with."""


@dataclass(frozen=True, slots=True)
class SampleReport:
    """Numbers of one call."""

    folder: Path
    """Folder of the files, one a step."""
    num_steps: int
    """Steps that were sampled now."""
    num_rollouts: int
    num_right: int
    """Rollouts, of all steps sampled now, with a golden answer."""

    def __str__(self) -> str:
        if not self.num_steps:
            return f"{self.folder}: all steps are there already"
        share = self.num_right / max(1, self.num_rollouts)
        return f"{self.folder}: {self.num_rollouts:,} rollouts of {self.num_steps:,} steps, {share:.1%} right"


async def sample(config: TrainConfig, *, progress: bool = True) -> SampleReport:
    """Roll out the questions of all ``num_steps`` steps by the model as it is; a step whose file is there is left out.

    Raises:
        ConfigurationError: ``out_dir`` holds a training run, or rollouts of other settings.
        DatasetError, CorpusError: questions or passages can't be read.
        EngineError: the engine failed every rollout of a step.
    """
    source = find_model(config.model)
    _claim(config)
    kept = KeptRollouts(config.out_dir, model=config.model, num_each=None, max_bytes=None, seed=config.seed)
    steps = [step for step in range(config.num_steps) if not kept.has("step", step + 1)]
    num_rollouts = num_right = 0
    if steps:
        async with open_actor(config, source) as opened:
            actor = replace(opened, kept=kept)
            for step in tqdm(steps, desc="rollouts", unit="step", disable=not progress):
                _, record = await actor.collect(step)
                num = int(record["num_rollouts"])
                num_rollouts, num_right = num_rollouts + num, num_right + round(record["em"] * num)
    return SampleReport(config.out_dir / FOLDER, len(steps), num_rollouts, num_right)


def _claim(config: TrainConfig) -> None:
    """Write down of which settings the rollouts in ``out_dir`` are, or check that they are of these."""
    fields: dict[str, Any] = config.model_dump(mode="json")
    mine, path = {name: fields.get(name) for name in _DECISIVE}, config.out_dir / SAMPLED
    if path.is_file():
        theirs = json.loads(path.read_text("utf-8"))
        differing = [name for name in _DECISIVE if theirs.get(name) != mine[name]]
        if differing:
            raise ConfigurationError(
                f"{config.out_dir} holds rollouts of other settings ({', '.join(differing)}); use another out_dir"
            )
        return
    # A run that was stopped before its first save has written rollouts, of policies that had moved already.
    if any((config.out_dir / name).exists() for name in (STATE, METRICS, FOLDER)):
        raise ConfigurationError(f"{config.out_dir} holds a training run; use another out_dir")
    with whole_file(path) as file:
        file.write(json.dumps(mine, indent=2).encode() + b"\n")
