"""Parts of advantages: rewards per token, GAE, normalization, and comparison within groups.

Shapes: B trajectories, N = T - 1 tokens that have a prediction, R rollouts. Nothing outside the mask is read, NaN
included, and the result there is 0. Every result is float32 and detached.

Sources: PPO, arXiv 1707.06347; GAE, arXiv 1506.02438; GRPO, arXiv 2402.03300; Dr. GRPO, arXiv 2503.20783; Search-R1,
arXiv 2503.09516, section 3.
"""

import torch

_WHITEN_EPS = 1e-8


def token_rewards(final: torch.Tensor, kl: torch.Tensor | None, mask: torch.Tensor, kl_coef: float) -> torch.Tensor:
    """Return rewards per token [B, N]: ``final`` [B] on the last token of ``mask`` [B, N], less the KL of each.

    ``kl`` [B, N] is the k1 estimate (``losses.kl_k1``) in nats; its mean over trajectories is unbiased, and a reward
    needs no gradient. A trajectory without a token in ``mask`` gets no reward.

    Source: Search-R1, section 3.1; InstructGPT, arXiv 2203.02155, for the KL per token.
    """
    rewards = torch.zeros(mask.shape, device=mask.device)
    if kl is not None:
        rewards = torch.where(mask, -kl_coef * kl.detach().float(), rewards)
    after = mask.flip(-1).cumsum(-1).flip(-1)
    is_last = mask & (after == 1)
    return torch.where(is_last, rewards + final.detach().float()[:, None], rewards)


def gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns of the tokens in ``mask``; all shapes [B, N].

    The recursion goes from one token of ``mask`` to the next, however many lie between, as if they were adjacent:
    ``A[i] = (r[i] + gamma * V[i+1] - V[i]) + gamma * lam * A[i+1]`` with V and A zero after the last. Rewards outside
    of ``mask`` are lost. Returns are ``A + V``.

    The reference runs the recursion over observations too: give every token after the prompt as ``mask`` for that.

    Source: GAE, eq. 16; PPO, eq. 11.
    """
    rewards = torch.where(mask, rewards.detach().float(), 0.0)
    values = torch.where(mask, values.detach().float(), 0.0)
    advantages = torch.zeros_like(values)
    next_value = torch.zeros(mask.shape[0], device=mask.device)
    next_advantage = torch.zeros_like(next_value)
    for t in reversed(range(mask.shape[1])):
        here = mask[:, t]
        surprise = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(here, surprise + gamma * lam * next_advantage, next_advantage)
        next_value = torch.where(here, values[:, t], next_value)
        advantages[:, t] = torch.where(here, next_advantage, 0.0)
    return advantages, advantages + values


def whiten(x: torch.Tensor, mask: torch.Tensor, *, unbiased: bool = True) -> torch.Tensor:
    """Shift and scale the entries of ``x`` [B, N] in ``mask`` to mean 0 and variance 1.

    ``unbiased`` divides the variance by n - 1, as the reference does. Equal entries, a single one included, become 0.
    The mean is over what is given: where processes hold shares of a step, whiten before they are dealt out.
    """
    chosen = x.detach().double()[mask]
    if chosen.numel() == 0:
        return torch.zeros(mask.shape, device=x.device)
    centered = chosen - chosen.mean()
    variance = centered.square().sum() / max(1, chosen.numel() - int(unbiased))
    white = (centered * (variance + _WHITEN_EPS).rsqrt()).float()
    return torch.zeros(mask.shape, device=x.device).masked_scatter(mask, white)


def group_advantages(
    rewards: torch.Tensor, groups: torch.Tensor, *, unbiased: bool = True, eps: float = 1e-6, scale: bool = True
) -> torch.Tensor:
    """Return each rollout's reward against its siblings': ``(r - mean) / (std + eps)``, shape [R].

    ``groups`` [R] holds int ids, in any order; rollouts with the same id are siblings. ``unbiased`` divides the
    variance by n - 1. Without ``scale`` it is ``r - mean`` (Dr. GRPO). Equal rewards give exactly 0.

    A group of one gives 0: nothing was compared, so nothing is learned. The reference gives it its reward there, which
    would reinforce a rollout for having lost its siblings.

    Source: GRPO, section 4.1.2; Dr. GRPO, section 3.2.
    """
    _, index = torch.unique(groups, return_inverse=True)
    num_groups = int(index.max()) + 1 if index.numel() else 0
    rewards = rewards.detach().float().double()  # So short that their sums and means are exact.
    counts = torch.bincount(index, minlength=num_groups).double()

    def sums(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(num_groups, dtype=x.dtype, device=x.device).index_add(0, index, x)

    centered = rewards - (sums(rewards) / counts)[index]
    if not scale:
        return centered.float()
    variance = sums(centered.square()) / (counts - int(unbiased)).clamp(min=1)
    return (centered / (variance.sqrt()[index] + eps)).float()
