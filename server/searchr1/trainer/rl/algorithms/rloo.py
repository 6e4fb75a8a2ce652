"""RLOO: each rollout is compared with the mean of its siblings, itself left out, so that the baseline has no bias.

Source: RLOO, arXiv 2402.14740; W. Kool et al., "Buy 4 REINFORCE Samples, Get a Baseline for Free!" (2019). With rewards
``R`` of k rollouts the estimate is ``1/k sum_i (R_i - 1/(k - 1) sum_{j != i} R_j) grad log p(rollout i)``.

Beside the paper:

* The paper takes a whole completion as one action. So does the reward here: the KL of all sampled tokens (k1) is
  subtracted from it before rollouts are compared. The gradient of the first optimizer step on a batch, where all ratios
  are 1, is the paper's, up to the divisor that ``loss.over`` chooses; ``constant`` is nearest to it.
* The paper has no clip. With ``optimizer.num_minibatches: 1`` nothing is clipped here either; the steps after a batch's
  first have PPO's clipped ratios, token by token.
* Observations are no actions: their tokens are in no term (Search-R1, arXiv 2503.09516, section 3.1).
* The entropy bonus (``loss.entropy_coef``) is Search-R1's; the paper has none.
* A rollout that lost all its siblings gets an advantage of 0.
"""

from typing import ClassVar

import torch

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.advantages import group_advantages
from searchr1.trainer.rl.algorithms.base import Advantages, Algorithm, OldPolicyStats, register
from searchr1.trainer.rl.losses import kl_k1


@register("rloo")
class RLOO(Algorithm):
    """Advantages are rewards, KL included, less the mean over the other rollouts of the question."""

    __slots__ = ()
    verl_adv_estimator: ClassVar[str | None] = "rloo"

    def check(self) -> None:
        """Raise ``ConfigurationError`` where rollouts have no siblings."""
        if self.group_size < 2:
            raise ConfigurationError("rloo compares rollouts of one question: rollout.group_size must be 2 or more")

    def reads_logprobs(self) -> bool:
        """Return whether there is a KL, which is subtracted from the rewards."""
        return self.loss.kl_coef > 0

    def advantages(self, old: OldPolicyStats) -> Advantages:
        """Return one advantage for all tokens of a rollout: ``r - (sum of the others') / (k - 1)``."""
        rewards = old.rewards
        if old.ref_logprobs is not None:
            kl = torch.where(old.mask, kl_k1(old.logprobs, old.ref_logprobs), 0.0)
            rewards = rewards - self.loss.kl_coef * kl.sum(-1)
        _, index, counts = torch.unique(old.groups, return_inverse=True, return_counts=True)
        # Leaving one of k out makes its distance to the mean k / (k - 1) times as large; alone, the distance is 0.
        factor = (counts / (counts - 1).clamp(min=1))[index]
        advantages = group_advantages(rewards, old.groups, scale=False) * factor
        return Advantages(advantages[:, None].expand(old.mask.shape), torch.zeros(old.mask.shape))
