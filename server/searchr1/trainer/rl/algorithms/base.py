"""The contract of an algorithm, the registry of algorithms, and the loss that most of them share.

An algorithm is one file of this folder with one class: ``@register("its name")``, a subclass of ``Algorithm``. Its one
duty is ``advantages``; everything else has a default. ``algorithm: its name`` in a run's configuration chooses it.

Shapes: R samples of a step, B of a micro-batch, N = T - 1 tokens that have a prediction.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch

from searchr1.registry import Registry
from searchr1.trainer.rl.losses import PolicyLoss, kl_k3, masked_mean, policy_loss, value_loss
from searchr1.trainer.rl.sections import LossSection


@dataclass(frozen=True, slots=True)
class OldPolicyStats:
    """A step's samples as the models saw them before its first optimizer step, on the CPU."""

    rewards: torch.Tensor
    """[R] float32."""
    groups: torch.Tensor
    """[R] int64; siblings, the rollouts of one question, share a number."""
    mask: torch.Tensor
    """[R, N] bool; tokens in the policy's loss."""
    value_mask: torch.Tensor
    """[R, N] bool; tokens that have a value, see ``loss.gae_over``."""
    logprobs: torch.Tensor
    """[R, N] float32; by the weights that sampled the step. 0 outside of ``mask``, and everywhere where
    ``Algorithm.reads_logprobs`` spared the pass."""
    ref_logprobs: torch.Tensor | None
    """[R, N] float32; by the start policy. None without a KL, and where ``Algorithm.reads_logprobs`` spared the
    pass."""
    values: torch.Tensor
    """[R, N] float32; by the critic. Zeros without one."""
    weights: torch.Tensor
    """[R, N] float32; truncated importance weights of the engine's tokens."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """Results of ``Algorithm.advantages``: what the losses of one step aim at."""

    advantages: torch.Tensor
    """[R, N] float32, detached. Not read outside of the mask."""
    returns: torch.Tensor
    """[R, N] float32, detached; targets of the critic. Zeros without one."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Scalars of the step to log beside those that every algorithm has."""


@dataclass(frozen=True, slots=True)
class PolicyTokens:
    """A micro-batch as the policy's loss takes it, on the device of the models."""

    logprobs: torch.Tensor
    """[B, N] float32; by the policy in training. Carries the gradient."""
    entropies: torch.Tensor
    """[B, N] float32, nats; of the distributions that the tokens were sampled from. Carries the gradient too."""
    old_logprobs: torch.Tensor
    """[B, N] float32; see ``OldPolicyStats.logprobs``."""
    ref_logprobs: torch.Tensor | None
    """[B, N] float32; None without a KL."""
    advantages: torch.Tensor
    """[B, N] float32."""
    weights: torch.Tensor | None
    """[B, N] float32; None weighs all tokens alike."""
    mask: torch.Tensor
    """[B, N] bool; tokens in the loss."""
    denominator: float
    """Divisor of the sum over the whole minibatch, so that the losses of its micro-batches add up."""


@dataclass(frozen=True, slots=True)
class Algorithm(ABC):
    """A way to turn rewards into gradients. The defaults are those of an algorithm with PPO's loss and no critic."""

    needs_critic: ClassVar[bool] = False
    """True if a critic is trained beside the policy."""
    kl_in: ClassVar[Literal["reward", "loss"]] = "reward"
    """Place of the KL to the start policy: ``advantages`` subtracts it from rewards, or the loss adds it (k3)."""
    verl_adv_estimator: ClassVar[str | None] = None
    """Name of the same algorithm in verl (``algorithm.adv_estimator``); None: verl has none."""

    loss: LossSection
    group_size: int
    """Rollouts of one question."""

    def check(self) -> None:  # noqa: B027 - most algorithms take all settings
        """Raise ``ConfigurationError`` where the settings do not suit the algorithm."""

    def reads_logprobs(self) -> bool:
        """Return whether ``advantages`` reads logprobs, those of the start policy included.

        Where it does not, and there is no critic, a step with one optimizer step needs no pass before it: the weights
        that sampled are still those in training, so that the old logprobs are the ones that carry the gradient.
        """
        return True

    @abstractmethod
    def advantages(self, old: OldPolicyStats) -> Advantages:
        """Return advantages, and for a critic returns, of all samples of a step."""

    def has_gradient(self, advantages: torch.Tensor) -> torch.Tensor:
        """Return which samples move a model at all: bool [R], of ``advantages`` [R, N]. The others need no pass."""
        kl_in_loss = self.kl_in == "loss" and self.loss.kl_coef > 0
        if self.needs_critic or kl_in_loss or self.loss.entropy_coef != 0:
            return torch.ones(len(advantages), dtype=torch.bool)
        return advantages.any(-1)

    def policy_loss(self, tokens: PolicyTokens) -> tuple[torch.Tensor, PolicyLoss]:
        """Return the loss to minimize, a scalar, and its clipped surrogate alone, with what to watch.

        The loss is PPO's clipped surrogate (arXiv 1707.06347, eq. 7) less the entropy bonus, and plus the k3 estimate
        of the KL to the start policy where ``kl_in`` is the loss. Gradients go into ``logprobs`` and ``entropies``.
        """
        loss = self.loss
        surrogate = policy_loss(
            tokens.logprobs,
            tokens.old_logprobs,
            tokens.advantages,
            tokens.mask,
            clip_low=loss.clip_low,
            clip_high=loss.clip_high,
            weights=tokens.weights,
            over=loss.over,
            denominator=tokens.denominator,
        )
        total = surrogate.loss
        if loss.entropy_coef > 0:  # Its gradient is as large as all logits are.
            entropy = masked_mean(tokens.entropies, tokens.mask, loss.over, denominator=tokens.denominator)
            total = total - loss.entropy_coef * entropy
        if self.kl_in == "loss" and tokens.ref_logprobs is not None:
            kl = kl_k3(tokens.logprobs, tokens.ref_logprobs)
            total = total + loss.kl_coef * masked_mean(kl, tokens.mask, loss.over, denominator=tokens.denominator)
        return total, surrogate

    def critic_loss(
        self,
        values: torch.Tensor,
        old_values: torch.Tensor,
        returns: torch.Tensor,
        mask: torch.Tensor,
        denominator: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the clipped value loss, a mean over tokens, and the share of tokens where the clip binds.

        All shapes [B, N]; gradients go into ``values``. Asked only where ``needs_critic``.
        """
        return value_loss(values, old_values, returns, mask, clip=self.loss.value_clip, denominator=denominator)


ALGORITHMS: Registry[type[Algorithm]] = Registry("algorithm", "searchr1.trainer.rl.algorithms.*")


def register(name: str) -> Callable[[type[Algorithm]], type[Algorithm]]:
    """Return a decorator that makes an algorithm known as ``name``.

    Raises:
        ValueError: another class has that name.
    """
    return ALGORITHMS.register(name)


def algorithm_named(name: str) -> type[Algorithm]:
    """Return the algorithm registered as ``name``.

    Raises:
        ConfigurationError: there is none; the message names those that there are.
    """
    return ALGORITHMS.named(name)
