"""GRPO: rollouts of one question are compared with each other, so that no critic is needed.

Source: GRPO, arXiv 2402.03300; Search-R1, arXiv 2503.09516, section 3.1. Shapes as in ``losses``: B trajectories,
N = T - 1 tokens that have a prediction, R rollouts.
"""

import torch

from searchr1.trainer.rl.advantages import group_advantages
from searchr1.trainer.rl.algorithms.ppo import ppo_loss
from searchr1.trainer.rl.config import LossSection
from searchr1.trainer.rl.losses import PolicyLoss, kl_k3, masked_mean


def grpo_advantages(rewards: torch.Tensor, groups: torch.Tensor, loss: LossSection, *, group_size: int) -> torch.Tensor:
    """One advantage per rollout, shape [R], of ``rewards`` [R] among siblings with the same id in ``groups`` [R].

    With a ``group_size`` of 1 there is nobody to compare with, and the reward itself is the advantage: REINFORCE, as
    in the paper's comparison of group sizes. A rollout that lost its siblings on the way gets 0.
    """
    if group_size == 1:
        return rewards.detach().float()
    return group_advantages(rewards, groups, scale=loss.scale_by_std)


def grpo_loss(
    logprobs: torch.Tensor,
    entropies: torch.Tensor,
    old_logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor | None,
    advantages: torch.Tensor,
    weights: torch.Tensor | None,
    mask: torch.Tensor,
    loss: LossSection,
    denominator: float,
) -> tuple[torch.Tensor, PolicyLoss]:
    """PPO's loss, plus the KL to the start policy (k3), which PPO has in its rewards; and the surrogate alone.

    Shapes [B, N], but ``advantages`` [B, 1] or [B]; gradients go into ``logprobs`` and ``entropies``.
    """
    total, surrogate = ppo_loss(logprobs, entropies, old_logprobs, advantages, weights, mask, loss, denominator)
    if ref_logprobs is not None:
        kl = kl_k3(logprobs, ref_logprobs)
        total = total + loss.kl_coef * masked_mean(kl, mask, loss.over, denominator=denominator)
    return total, surrogate
