"""PPO: a critic says what each token's return is expected to be, and the surprise is the advantage.

Source: PPO, arXiv 1707.06347; Search-R1, arXiv 2503.09516, section 3.1. Shapes as in ``losses``: B trajectories,
N = T - 1 tokens that have a prediction, R rollouts.
"""

import torch

from searchr1.trainer.rl.advantages import gae, token_rewards, whiten
from searchr1.trainer.rl.config import LossSection
from searchr1.trainer.rl.losses import PolicyLoss, kl_k1, masked_mean, policy_loss, value_loss


def ppo_advantages(
    rewards: torch.Tensor,
    logprobs: torch.Tensor,
    ref_logprobs: torch.Tensor | None,
    values: torch.Tensor,
    mask: torch.Tensor,
    loss: LossSection,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Whitened advantages and returns, shapes [R, N], of ``rewards`` [R] and the critic's ``values`` [R, N].

    The KL to the start policy (k1) is in the rewards. ``mask`` [R, N] holds the tokens over which GAE runs.
    """
    kl = None if ref_logprobs is None else kl_k1(logprobs, ref_logprobs)
    advantages, returns = gae(token_rewards(rewards, kl, mask, loss.kl_coef), values, mask, loss.gamma, loss.lam)
    return whiten(advantages, mask), returns


def ppo_loss(
    logprobs: torch.Tensor,
    entropies: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor | None,
    mask: torch.Tensor,
    loss: LossSection,
    denominator: float,
) -> tuple[torch.Tensor, PolicyLoss]:
    """The clipped surrogate less the entropy bonus; and the surrogate alone.

    Shapes [B, N]; gradients go into ``logprobs`` and ``entropies``.
    """
    surrogate = policy_loss(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        clip_low=loss.clip_low,
        clip_high=loss.clip_high,
        weights=weights,
        over=loss.over,
        denominator=denominator,
    )
    entropy = masked_mean(entropies, mask, loss.over, denominator=denominator)
    return surrogate.loss - loss.entropy_coef * entropy, surrogate


def critic_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    loss: LossSection,
    denominator: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The clipped value loss, a mean over tokens, and the share of tokens where the clip binds. Shapes [B, N]."""
    return value_loss(values, old_values, returns, mask, clip=loss.value_clip, denominator=denominator)
