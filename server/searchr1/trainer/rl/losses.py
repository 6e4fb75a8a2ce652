"""Parts of losses: the clipped policy and value losses, KL estimates, and means over tokens.

Shapes: B trajectories, N = T - 1 tokens that have a prediction. A position outside the mask holds nothing: neither its
value, NaN included, nor its gradient reaches a loss. The KL estimates take no mask: ``masked_mean`` applies it, to
finite values. Logprobs, entropies and KLs are in nats.

Sources: PPO, arXiv 1707.06347; GRPO, arXiv 2402.03300; DAPO, arXiv 2503.14476; Dr. GRPO, arXiv 2503.20783; the KL
estimators, J. Schulman, "Approximating KL Divergence" (2020); truncated importance sampling, F. Yao et al., "Your
Efficient RL Framework Secretly Brings You Off-Policy RL Training" (2025).
"""

from dataclasses import dataclass

import torch

from searchr1.trainer.rl.sections import Over

MAX_LOG_RATIO = 20.0
"""Bound in nats: ratios of probabilities are kept within e^±20, so that one impossible token can't make a loss
infinite."""


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A policy loss and what to watch of it: scalars over the tokens of the mask, all but the loss detached."""

    loss: torch.Tensor
    """Loss to minimize; carries the gradient."""
    clip_fraction: torch.Tensor
    """Share of tokens whose clipped term is the larger one, so that they carry no gradient."""
    approx_kl: torch.Tensor
    """k3 estimate of the KL from the policy that sampled to the one in training."""
    ratio_max: torch.Tensor
    """Largest ratio of new to old probability; 0 where there is no token."""


@dataclass(frozen=True, slots=True)
class EngineGap:
    """The gap between the trainer's logprobs and the engine's on the same tokens; detached scalars."""

    mean_abs: torch.Tensor
    """Mean absolute difference, nats."""
    max_abs: torch.Tensor
    """Largest absolute difference, nats."""
    kl: torch.Tensor
    """k3 estimate of the KL from the engine's policy to the trainer's."""
    capped_fraction: torch.Tensor
    """Share of tokens whose weight is the cap."""


def masked_mean(
    x: torch.Tensor, mask: torch.Tensor, over: Over = "token", *, denominator: float | torch.Tensor | None = None
) -> torch.Tensor:
    """Return the mean of ``x`` [B, N] over ``mask`` [B, N], a scalar; 0 where no token is in it.

    * ``token``: the sum over all tokens / their number (DAPO, section 3.3, and the reference).
    * ``sequence``: the sum over trajectories of each one's own mean / the number of those with a token (GRPO, eq. 3).
    * ``constant``: the sum over all tokens / ``denominator``, trajectories x a fixed length (Dr. GRPO), so that
      a token weighs the same in every step.

    ``denominator`` replaces the last divisor. Where a step is cut into passes, give each the whole step's, from
    ``num_terms``: the passes' results then add up to the step's.

    Raises:
        ValueError: ``constant`` without a denominator.
    """
    if denominator is None:
        denominator = num_terms(mask, over)
    kept = torch.where(mask, x, 0.0)
    if over == "sequence":
        kept = kept.sum(-1) / mask.sum(-1).clamp(min=1)
    return kept.sum() / denominator


def num_terms(mask: torch.Tensor, over: Over) -> int:
    """Return the last divisor of ``masked_mean``: tokens, or trajectories that have one; at least 1.

    Raises:
        ValueError: ``constant``, whose divisor is not counted but chosen.
    """
    if over == "constant":
        raise ValueError("over='constant' needs a denominator: trajectories x a fixed number of tokens")
    terms = mask if over == "token" else mask.any(-1)
    return max(1, int(terms.sum()))


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    weights: torch.Tensor | None = None,
    over: Over = "token",
    denominator: float | torch.Tensor | None = None,
) -> PolicyLoss:
    """Return the clipped surrogate to minimize: the mean of ``max(-A * ratio, -A * clip(ratio, 1 - low, 1 + high))``.

    All tensors have shape [B, N], but ``advantages`` may be [B] or [B, 1]: one for a whole trajectory. Gradients go
    into ``logprobs`` alone. ``weights`` scale each token's term (``truncated_importance``). ``over`` and
    ``denominator`` are those of ``masked_mean``; the metrics are always means over the tokens given.

    Source: PPO, eq. 7; DAPO, section 3.1, for two clip bounds.
    """
    if advantages.dim() == 1:
        advantages = advantages[:, None]
    advantages = torch.where(mask, advantages.detach(), 0.0)
    log_ratio = torch.where(mask, logprobs - old_logprobs.detach(), 0.0).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    free = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip_low, 1 + clip_high)
    terms = torch.maximum(free, clipped)
    if weights is not None:
        terms = terms * torch.where(mask, weights.detach(), 0.0)
    loss = masked_mean(terms, mask, over, denominator=denominator)
    with torch.no_grad():
        return PolicyLoss(
            loss=loss,
            clip_fraction=masked_mean((clipped > free).float(), mask),
            approx_kl=masked_mean(kl_k3(old_logprobs, logprobs, cap=None), mask),
            ratio_max=torch.where(mask, ratio, 0.0).max() if mask.numel() else torch.zeros((), device=mask.device),
        )


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    mask: torch.Tensor,
    *,
    clip: float = 0.5,
    denominator: float | torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return half the mean square of value - return, and the share of tokens where the clip binds; both scalars.

    A value may move from its old one by ``clip``; beyond, the larger of the clipped and the free loss counts, so that
    it carries no gradient where it moved too far towards its return. All tensors have shape [B, N]; gradients go into
    ``values`` alone. ``denominator`` is that of ``masked_mean``, over tokens.

    Source: the public PPO code (openai/baselines, ``ppo2``), as in the reference; the paper has no clip here.
    """
    old_values = old_values.detach()
    returns = returns.detach()
    error = torch.where(mask, values - returns, 0.0)
    near = torch.maximum(torch.minimum(values, old_values + clip), old_values - clip)
    clipped_error = torch.where(mask, near - returns, 0.0)
    free, clipped = error.square(), clipped_error.square()
    loss = 0.5 * masked_mean(torch.maximum(free, clipped), mask, denominator=denominator)
    return loss, masked_mean((clipped > free).float(), mask).detach()


def kl_k1(logprobs: torch.Tensor, ref_logprobs: torch.Tensor) -> torch.Tensor:
    """Return ``log p - log q`` per token, any shape: unbiased for KL(p || q) on samples of p; may be negative."""
    return logprobs - ref_logprobs


def kl_k3(logprobs: torch.Tensor, ref_logprobs: torch.Tensor, *, cap: float | None = 10.0) -> torch.Tensor:
    """Return ``q/p - log(q/p) - 1`` per token, any shape: unbiased for KL(p || q) on samples of p, never negative.

    The reference calls it ``low_var_kl`` and cuts it at ``cap``; a token beyond carries no gradient.

    Source: GRPO, eq. 4.
    """
    log_ratio = (ref_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    kl = log_ratio.exp() - log_ratio - 1
    return kl if cap is None else kl.clamp(max=cap)


def truncated_importance(
    trainer_logprobs: torch.Tensor, engine_logprobs: torch.Tensor, mask: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, EngineGap]:
    """Return weights ``min(p_trainer / p_engine, cap)`` of tokens in ``mask``, 1 elsewhere, and the gap; shapes [B, N].

    ``trainer_logprobs`` are those of the weights that the engine sampled with. ``mask`` holds the tokens whose
    ``engine_logprobs`` are known. The weights carry no gradient; without a ``cap`` they are all 1.

    Source: Yao et al. (2025).
    """
    with torch.no_grad():
        trainer, engine = (torch.where(mask, x.float(), 0.0) for x in (trainer_logprobs, engine_logprobs))
        log_ratio = trainer - engine
        ratio = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
        weights = torch.ones_like(ratio) if cap is None else torch.where(mask, ratio.clamp(max=cap), 1.0)
        capped = torch.zeros_like(ratio) if cap is None else (ratio > cap).float()
        return weights, EngineGap(
            mean_abs=masked_mean(log_ratio.abs(), mask),
            max_abs=log_ratio.abs().max() if mask.numel() else torch.zeros((), device=mask.device),
            kl=masked_mean(kl_k3(engine, trainer, cap=None), mask),
            capped_fraction=masked_mean(capped, mask),
        )
