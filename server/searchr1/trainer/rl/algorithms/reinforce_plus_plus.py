"""REINFORCE++: what a token earned from there on, normalized over the whole step, without critic and without groups.

Source: REINFORCE++, arXiv 2501.03262. The advantage of token t is ``r - kl_coef * sum_{i >= t} KL(i)``, with the k1
estimate of the KL, less the mean and over the standard deviation of all tokens of the batch. The loss is PPO's, with
its clip.

Beside the paper:

* Observations are no actions: their tokens are in no mean and in no term (Search-R1, arXiv 2503.09516, section 3.1).
* ``loss.gamma`` discounts; at 1, the default, it is the paper's.
* The batch that is normalized over is one step's rollouts, however they fall to minibatches and processes.
* The entropy bonus (``loss.entropy_coef``) is Search-R1's; the paper has none.
* Left out: the variant with a baseline, which subtracts the group's mean first (k > 1) and has its KL in the loss; and
  the clipping of rewards in the first versions, as the shipped rewards are between 0 and 1.
"""

from typing import ClassVar

import torch

from searchr1.trainer.rl.advantages import gae, token_rewards, whiten
from searchr1.trainer.rl.algorithms.base import Advantages, Algorithm, OldPolicyStats, register
from searchr1.trainer.rl.losses import kl_k1, masked_mean


@register("reinforce_plus_plus")
class ReinforcePlusPlus(Algorithm):
    """Advantages are sums of the rewards from each token on, the KL among them, normalized over the step."""

    __slots__ = ()
    verl_adv_estimator: ClassVar[str | None] = "reinforce_plus_plus"

    def reads_logprobs(self) -> bool:
        """Return whether there is a KL, which is subtracted from the rewards."""
        return self.loss.kl_coef > 0

    def advantages(self, old: OldPolicyStats) -> Advantages:
        """Return an advantage for each sampled token, and log the mean return, which takes a baseline's place."""
        nothing, loss = torch.zeros(old.mask.shape), self.loss
        kl = None if old.ref_logprobs is None else kl_k1(old.logprobs, old.ref_logprobs)
        rewards = token_rewards(old.rewards, kl, old.mask, loss.kl_coef)
        # Without values and with lambda 1, GAE is the sum of what follows.
        returns, _ = gae(rewards, nothing, old.mask, loss.gamma, 1.0)
        metrics = {"return_mean": float(masked_mean(returns, old.mask))}
        return Advantages(whiten(returns, old.mask), nothing, metrics)
