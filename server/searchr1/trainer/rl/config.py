"""The configuration of a training run: a typed YAML file. Its sections are in ``sections.py``.

A field that is misspelt or out of bounds is told before torch is imported, which takes seconds: the algorithm, whose
module needs it, is looked at last.

The defaults are the paper's (arXiv 2503.09516, appendix; ``train_ppo.sh`` and ``train_grpo.sh`` of its repository).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from searchr1.errors import ConfigurationError, as_value_error
from searchr1.loop.profiles.registry import profile_named
from searchr1.trainer.rl.sections import LoraSection, LossSection, OptimizerSection, RolloutSection, Section

if TYPE_CHECKING:
    from searchr1.trainer.rl.algorithms.base import Algorithm

S = TypeVar("S", bound=Section)


class TrainConfig(Section):
    """Configuration of one training run."""

    algorithm: str
    """Name of an algorithm in ``algorithms/``: grpo, ppo, …"""
    model: str
    """The policy to start from, and the reference of the KL: a folder or hub name."""
    profile: Annotated[str, Field(exclude_if=lambda name: name == "search-r1")] = "search-r1"
    """The format that the policy is trained in: its tags, texts and answers; see ``docs/reference/loop.md``."""
    data: str
    """Questions to train on, as ``searchr1 data prepare`` names them: ``atlas``, a file, a hub dataset."""
    data_split: str = "train"
    """Split of ``data``."""
    retriever: str
    """Source of passages, named as in ``searchr1 serve``: ``index:PATH``, ``http://…/retrieve``."""
    out_dir: Path
    """Metrics, plots, rollouts, training state, and checkpoints, of which ``checkpoint`` is the last."""
    reward: str = "exact_match"
    """A registered reward's name, or ``module:function``."""
    num_steps: int = Field(default=500, ge=1)
    """Rollout-and-update steps."""
    eval_data: str | None = None
    """Questions to evaluate on, named as ``data``. None: no evaluation."""
    eval_split: str = "validation"
    """Split of ``eval_data``."""
    eval_every_steps: int = Field(default=50, ge=1)
    """Steps between evaluations; the last step is always evaluated."""
    num_eval_questions: int = Field(default=256, ge=1)
    """Questions of an evaluation, of each set where ``eval_data`` has several. ``eval_seed`` decides which."""
    eval_seed: int = Field(default=0, ge=0)
    """Seed of the evaluation's questions and of its sampled answers, apart from ``seed``: runs that differ in that one
    are asked the same."""
    num_eval_samples: int = Field(default=0, ge=0)
    """Sampled answers to each of the evaluation's questions, at temperature 1 as in training, beside the greedy one."""
    save_every_steps: int = Field(default=25, ge=1)
    """Steps between saves; the last step is always saved."""
    keep_checkpoints: int = Field(default=3, ge=1)
    """Checkpoints that stay, the last ones; the best by evaluation stays beside them."""
    keep_rollouts: int = Field(default=8, ge=0)
    """Rollouts of each step that are written to ``out_dir/rollouts``, drawn by the seed. Evaluations are written
    whole."""
    max_rollouts_mb: int = Field(default=1024, ge=0)
    """Megabytes of ``out_dir/rollouts``: beyond them the oldest steps go, and evaluations only then. 0: none is
    written."""
    max_skipped_updates: int = Field(default=10, ge=1)
    """Optimizer steps in a row that, skipped because loss or gradient is not finite, end the run."""
    device: str = "cpu"
    """Device of the trainer: cpu, cuda."""
    seed: int = Field(default=0, ge=0)
    """Seed of data order, sampling, adapters and the critic's head."""
    rollout: RolloutSection = RolloutSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    lora: LoraSection | None = None
    """Adapters to train; None: all weights are trained."""

    @model_validator(mode="after")
    @as_value_error()
    def _suits_the_algorithm(self) -> Self:
        self.open_algorithm().check()
        return self

    def open_algorithm(self) -> "Algorithm":
        """Return the algorithm with this run's settings."""
        from searchr1.trainer.rl.algorithms.base import algorithm_named

        return algorithm_named(self.algorithm)(self.loss, self.rollout.group_size)

    @field_validator("profile")
    @classmethod
    @as_value_error()
    def _check_profile(cls, value: str) -> str:
        return profile_named(value).name


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Return overrides for ``load_config`` from words such as ``optimizer.lr=1e-5``, whose values are YAML.

    Raises:
        ConfigurationError: a word is no assignment.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise ConfigurationError(f"--set takes NAME=VALUE, not {assignment!r}")
        try:
            values[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigurationError(f"--set {assignment}: the value can't be read as YAML") from error
    return values


def load_config(path: Path, overrides: dict[str, Any] | None = None) -> TrainConfig:
    """Return the run that a YAML file describes; see ``load_section``."""
    return load_section(TrainConfig, path, overrides)


def load_section(kind: type[S], path: Path, overrides: dict[str, Any] | None = None) -> S:
    """Return the configuration that a YAML file has, with ``overrides`` by dotted name (``{"optimizer.lr": 1e-5}``).

    Raises:
        ConfigurationError: the file can't be read, or a field is unknown or out of bounds; the message names each.
    """
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path} must hold fields such as '{next(iter(kind.model_fields))}: …'")
    for name, value in (overrides or {}).items():
        *sections, last = name.split(".")
        section = fields
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigurationError(f"there is no field {name}")
        section[last] = value
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors()
        ]
        raise ConfigurationError(f"{path}: {'; '.join(faults)}") from error
