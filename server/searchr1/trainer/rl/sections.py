"""The sections of a training configuration: rollouts, loss, optimizer and adapters.

Every field says what it means, in which unit, and its default. The defaults are the paper's (arXiv 2503.09516,
appendix; ``train_ppo.sh`` and ``train_grpo.sh`` of its repository). Nothing here imports torch: ``config.py`` says why.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from searchr1.engines.factory import OPENERS
from searchr1.errors import as_value_error
from searchr1.loop.types import Limits

Over = Literal["token", "sequence", "constant"]
"""Ways to average tokens; see ``losses.masked_mean``."""
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the configuration: no unknown fields, no infinite numbers, no changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class RolloutSection(Section):
    """Settings of the rollouts in training."""

    questions_per_step: int = Field(default=512, ge=1)
    """Questions of one step: the paper's batch size for PPO; with groups, questions, not rollouts."""
    group_size: int = Field(default=1, ge=1)
    """Rollouts of one question, which some algorithms compare. GRPO with 1 is REINFORCE without a baseline."""
    top_k: int = Field(default=3, ge=1)
    """Passages per search."""
    max_turns: int = Field(default=4, ge=1)
    """Turns with search on."""
    max_searches: Annotated[Annotated[int, Field(ge=0)] | None, Field(exclude_if=lambda value: value is None)] = None
    """Searches of a rollout, in training and evaluation; None: one a turn. 0 is R1, reinforcement learning without
    search: a turn that asks for one then ends the rollout without an answer."""
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
    engine: str = "vllm"
    """Kind of engine, in this process: ``vllm``, or ``transformers`` where vLLM is not installed."""
    engine_dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Type of vLLM's weights."""
    engine_urls: tuple[str, ...] = ()
    """Running vLLM servers to sample from instead of a vLLM in this process; see
    ``docs/guides/distributed-training.md``."""
    enforce_eager: bool = False
    """Start vLLM without compiling: sooner, and a little slower from then on."""
    kv_cache_gib: Positive | None = None
    """vLLM's KV cache; set it on a CPU."""
    gpu_memory_share: Share = 0.5
    """Share of the GPU's memory that vLLM takes; the trainer needs the rest."""
    engines: Annotated[Literal["first", "each"], Field(exclude_if=lambda value: value == "first")] = "first"
    """Processes that sample: the first one, or each its share on an engine of its own."""
    sleep: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """On a GPU, let vLLM give its memory to the trainer during the update; not so with ``engine_urls``."""
    search_timeout_s: Positive = 10.0
    """Seconds that one search may take."""

    @field_validator("engine")
    @classmethod
    @as_value_error()
    def _check_engine(cls, kind: str) -> str:
        OPENERS.named(kind)
        return kind

    def limits(self) -> Limits:
        """Return the loop's bounds."""
        return Limits(
            max_turns=self.max_turns,
            max_searches=self.max_searches,
            max_completion_tokens=self.max_completion_tokens,
            max_observation_tokens=self.max_observation_tokens,
            max_context_tokens=self.max_context_tokens,
            max_trajectory_tokens=self.max_trajectory_tokens,
        )


class LossSection(Section):
    """Settings of advantages and losses. A field that one algorithm alone reads names it."""

    clip_low: Positive = 0.2
    """The ratio of new to old probability is clipped below ``1 - clip_low``."""
    clip_high: Positive = 0.2
    """The ratio is clipped above ``1 + clip_high``; a value above ``clip_low`` is DAPO's clip-higher."""
    kl_coef: float = Field(default=0.001, ge=0)
    """Weight of the KL to the start policy, which the algorithm has in the reward (k1) or in the loss (k3). 0: no
    reference model."""
    entropy_coef: float = Field(default=0.001, ge=0)
    """Weight of the entropy bonus."""
    over: Over = "token"
    """Mean over a minibatch's tokens, over its trajectories' own means, or ``constant_tokens`` each (Dr. GRPO)."""
    constant_tokens: int = Field(default=1000, ge=1)
    """Tokens that each trajectory adds to the divisor with ``over: constant``, however long it is."""
    mask_observations: bool = True
    """Leave tokens that the policy did not sample out of every loss. False trains on them, as the paper's ablation."""
    scale_by_std: bool = True
    """GRPO: divide by the group's standard deviation. False is Dr. GRPO."""
    gamma: Share = 1.0
    """Discount per sampled token, where the algorithm has a return for each token."""
    lam: Share = 1.0
    """PPO: lambda of GAE."""
    gae_over: Literal["sampled", "all"] = "sampled"
    """PPO: GAE, whitening and the value loss run over sampled tokens, or over observations too, as in the reference."""
    value_clip: Positive = 0.5
    """PPO: how far a value may move from the old one before the loss is clipped."""
    importance_cap: Positive | None = None
    """Cap of the truncated importance weights that correct for the gap between engine and trainer; None: no weights."""


class OptimizerSection(Section):
    """Settings of the optimizers and of the passes through the models."""

    lr: Positive = 1e-6
    """Peak learning rate of the policy."""
    warmup: Share = 0.285
    """Share of the run over which ``lr`` rises; then it stays. The paper prints 0.285 and 500 steps; its scripts have
    0.285 of 1,005 steps, which is 286, and so have the files in ``configs/``."""
    critic_lr: Positive = 1e-5
    """PPO: peak learning rate of the critic."""
    critic_warmup: Share = 0.015
    """PPO: share of the run over which ``critic_lr`` rises."""
    critic_only_steps: int = Field(default=0, ge=0)
    """PPO: first steps in which only the critic learns, so that the policy is not moved by values that mean nothing."""
    weight_decay: float = Field(default=0.01, ge=0)
    """AdamW's weight decay."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moments."""
    max_grad_norm: Positive = 1.0
    """Norm that gradients are clipped to."""
    num_minibatches: int = Field(default=2, ge=1)
    """Optimizer steps on one step's rollouts."""
    num_epochs: int = Field(default=1, ge=1)
    """Passes over one step's rollouts."""
    max_tokens_per_pass: int = Field(default=32_768, ge=1)
    """Tokens, padding included, of one forward and backward pass; gradients add up over passes."""
    activation_checkpointing: bool = False
    """Compute each layer again in the backward pass: less memory, a third more time."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the passes: of matrix products and what lies between them. Weights that are trained, their gradients'
    sums and the optimizer's state are float32."""
    compile_layers: Annotated[bool, Field(exclude_if=lambda value: not value)] = False
    """Compile the layers: a minute or two at the start, on a CPU with a C++ compiler, and faster from then on."""


class LoraSection(Section):
    """Low-rank adapters (arXiv 2106.09685) instead of all weights; checkpoints and the engine get them merged."""

    rank: int = Field(default=16, ge=1)
    """Columns of one adapter matrix, rows of the other."""
    alpha: Positive = 32.0
    """The adapters' product is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get an adapter."""

    @property
    def scale(self) -> float:
        """Factor of the adapters' product."""
        return self.alpha / self.rank
