"""What decides a training run: a typed YAML file. Every field says what it means, in which unit, and its default.

The defaults are the paper's (arXiv 2503.09516, appendix; ``train_ppo.sh`` and ``train_grpo.sh`` of its repository).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from searchr1.errors import ConfigurationError
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Limits
from searchr1.trainer.rl.losses import Over

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RolloutSection(_Section):
    """How the policy answers questions in training."""

    questions_per_step: int = Field(default=512, ge=1)
    """Questions of one step: the paper's batch size for PPO; with groups, questions, not rollouts."""
    group_size: int = Field(default=1, ge=1)
    """Rollouts of one question. GRPO compares them; with 1 it is REINFORCE without a baseline."""
    top_k: int = Field(default=3, ge=1)
    """Passages per search."""
    max_turns: int = Field(default=4, ge=1)
    """Turns with search on."""
    max_completion_tokens: int = Field(default=500, ge=1)
    """Sampled tokens of one turn."""
    max_observation_tokens: int = Field(default=500, ge=0)
    """Tokens of one observation."""
    max_context_tokens: int = Field(default=4096, ge=64)
    """Tokens that the engine is given."""
    max_trajectory_tokens: int = Field(default=4096, ge=64)
    """Tokens after the prompt that count for reward and loss."""
    max_concurrent: int = Field(default=256, ge=1)
    """Rollouts under way at once."""
    engine: Literal["vllm", "transformers"] = "vllm"
    """vLLM in this process, or plain transformers, one sequence at a time, where vLLM is not installed."""
    engine_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of vLLM's weights."""
    engine_urls: tuple[str, ...] = ()
    """Running vLLM servers to sample from instead of a vLLM in this process; see
    ``docs/distributed-training.md``."""
    enforce_eager: bool = False
    """Start vLLM without compiling: sooner, and a little slower from then on."""
    kv_cache_gib: Positive | None = None
    """vLLM's KV cache; set it on a CPU."""
    gpu_memory_share: Share = 0.5
    """Share of the GPU's memory that vLLM takes; the trainer needs the rest."""
    search_timeout_s: Positive = 10.0

    def limits(self) -> Limits:
        """The loop's bounds."""
        return Limits(
            max_turns=self.max_turns,
            max_completion_tokens=self.max_completion_tokens,
            max_observation_tokens=self.max_observation_tokens,
            max_context_tokens=self.max_context_tokens,
            max_trajectory_tokens=self.max_trajectory_tokens,
        )


class LossSection(_Section):
    """What is optimized."""

    clip_low: Positive = 0.2
    """The ratio of new to old probability is clipped below ``1 - clip_low``."""
    clip_high: Positive = 0.2
    """And above ``1 + clip_high``; a larger one is DAPO's clip-higher."""
    kl_coef: float = Field(default=0.001, ge=0)
    """Weight of the KL to the start policy; PPO has it in the reward (k1), GRPO in the loss (k3). 0: no reference."""
    entropy_coef: float = Field(default=0.001, ge=0)
    """Weight of the entropy bonus."""
    over: Over = "token"
    """Mean over a minibatch's tokens, over its trajectories' own means, or ``constant_tokens`` each (Dr. GRPO)."""
    constant_tokens: int = Field(default=1000, ge=1)
    """With ``over: constant``, what each trajectory adds to the divisor, however long it is."""
    mask_observations: bool = True
    """Leave tokens that the policy did not sample out of every loss. False trains on them, as the paper's ablation."""
    scale_by_std: bool = True
    """GRPO: divide by the group's standard deviation. False is Dr. GRPO."""
    gamma: Share = 1.0
    """PPO: discount per sampled token."""
    lam: Share = 1.0
    """PPO: lambda of GAE."""
    gae_over: Literal["sampled", "all"] = "sampled"
    """PPO: GAE, whitening and the value loss run over sampled tokens, or over observations too, as in the reference."""
    value_clip: Positive = 0.5
    """PPO: how far a value may move from the old one before the loss is clipped."""
    importance_cap: Positive | None = None
    """Cap of the truncated importance weights that correct for the gap between engine and trainer; None: no weights."""


class OptimizerSection(_Section):
    """How weights move."""

    lr: Positive = 1e-6
    """Peak learning rate of the policy."""
    warmup: Share = 0.285
    """Share of the run over which it rises; then it stays."""
    critic_lr: Positive = 1e-5
    """PPO: peak learning rate of the critic."""
    critic_warmup: Share = 0.015
    """PPO: share of the run over which that rises."""
    critic_only_steps: int = Field(default=0, ge=0)
    """PPO: first steps in which only the critic learns, so that the policy is not moved by values that mean nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.999)
    max_grad_norm: Positive = 1.0
    num_minibatches: int = Field(default=2, ge=1)
    """Optimizer steps on one step's rollouts."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over one step's rollouts."""
    max_tokens_per_pass: int = Field(default=32_768, ge=1)
    """Tokens, padding included, of one forward and backward pass; gradients add up over passes."""
    activation_checkpointing: bool = False
    """Compute each layer again in the backward pass: less memory, a third more time."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Of the matrix products; weights and optimizer state are float32."""


class LoraSection(_Section):
    """Low-rank adapters (arXiv 2106.09685) instead of all weights; checkpoints and the engine get them merged."""

    rank: int = Field(default=16, ge=1)
    alpha: Positive = 32.0
    """The adapters' product is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get one."""

    @property
    def scale(self) -> float:
        """What the adapters' product is multiplied by."""
        return self.alpha / self.rank


class TrainConfig(_Section):
    """One training run."""

    algorithm: Literal["grpo", "ppo"]
    model: str
    """The policy to start from, and the reference of the KL: a folder or hub name."""
    profile: Annotated[str, Field(exclude_if=lambda name: name == "search-r1")] = "search-r1"
    """The format that the policy is trained in: its tags, texts and how its answers are read; see ``docs/loop.md``."""
    data: str
    """Questions to train on, as ``searchr1 data prepare`` names them: ``atlas``, a file, a hub dataset."""
    data_split: str = "train"
    retriever: str
    """As of ``searchr1 serve``: ``index:PATH``, ``http://…/retrieve``."""
    out_dir: Path
    """Metrics, plots, training state, and the finished ``checkpoint`` folder."""
    reward: str = "exact_match"
    """A registered reward's name, or ``module:function``."""
    num_steps: int = Field(default=500, ge=1)
    """Rollout-and-update steps."""
    eval_data: str | None = None
    """Questions to evaluate on, greedily, named as ``data``. None: no evaluation."""
    eval_split: str = "validation"
    eval_every_steps: int = Field(default=50, ge=1)
    num_eval_questions: int = Field(default=256, ge=1)
    save_every_steps: int = Field(default=25, ge=1)
    device: str = "cpu"
    """Of the trainer: cpu, cuda."""
    seed: int = Field(default=0, ge=0)
    """Of data order, sampling and the critic's head."""
    rollout: RolloutSection = RolloutSection()
    loss: LossSection = LossSection()
    optimizer: OptimizerSection = OptimizerSection()
    lora: LoraSection | None = None
    """None: all weights are trained."""

    @field_validator("profile")
    @classmethod
    def _check_profile(cls, value: str) -> str:
        try:
            return profile_named(value).name
        except ConfigurationError as error:
            raise ValueError(str(error)) from error


def parse_overrides(assignments: Iterable[str]) -> dict[str, Any]:
    """Overrides for ``load_config`` from words such as ``optimizer.lr=1e-5``, whose values are YAML.

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
    """The run that a YAML file describes, with ``overrides`` by dotted name (``{"optimizer.lr": 1e-5}``).

    Raises:
        ConfigurationError: the file can't be read, or a field is unknown or out of bounds; the message names each.
    """
    try:
        fields = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{path} can't be read as YAML: {error}") from error
    if not isinstance(fields, dict):
        raise ConfigurationError(f"{path} must hold fields such as 'algorithm: grpo'")
    for name, value in (overrides or {}).items():
        *sections, last = name.split(".")
        section = fields
        for part in sections:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigurationError(f"there is no field {name}")
        section[last] = value
    try:
        return TrainConfig.model_validate(fields)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors())
        raise ConfigurationError(f"{path}: {faults}") from error
