"""GRPO: rollouts of one question are compared with each other, so that no critic is needed.

Source: GRPO, arXiv 2402.03300; Search-R1, arXiv 2503.09516, section 3.1. Beside the paper:

* Tokens are averaged as ``loss.over`` says: over a minibatch's tokens by default, as in Search-R1's code (DAPO). The
  paper's mean over each trajectory first (eq. 3) is ``sequence``.
* Observations are no actions: their tokens are in no term (Search-R1, section 3.1).
* The entropy bonus (``loss.entropy_coef``) is Search-R1's; the paper has none.
* The KL is the paper's k3 (eq. 4), but cut at 10 nats a token, as in Search-R1's code.
* A rollout that lost its siblings gets an advantage of 0; with a ``group_size`` of 1 there are none, and the reward
  itself is the advantage: REINFORCE, as in Search-R1's comparison of group sizes.
* Left out: process rewards (section 4.1.3), and replacing the reference model during the run (section 4.1.4).
"""

from typing import ClassVar, Literal

import torch

from searchr1.trainer.rl.advantages import group_advantages
from searchr1.trainer.rl.algorithms.base import Advantages, Algorithm, OldPolicyStats, register


@register("grpo")
class GRPO(Algorithm):
    """Advantages are rewards less the group's mean, over its standard deviation unless ``scale_by_std`` is off."""

    __slots__ = ()
    kl_in: ClassVar[Literal["reward", "loss"]] = "loss"
    verl_adv_estimator: ClassVar[str | None] = "grpo"

    def reads_logprobs(self) -> bool:
        """Return False: rewards are compared, and the KL is in the loss."""
        return False

    def advantages(self, old: OldPolicyStats) -> Advantages:
        """Return one advantage for all tokens of a rollout."""
        if self.group_size == 1:
            advantages = old.rewards.detach().float()
        else:
            advantages = group_advantages(old.rewards, old.groups, scale=self.loss.scale_by_std)
        return Advantages(advantages[:, None].expand(old.mask.shape), torch.zeros(old.mask.shape))
