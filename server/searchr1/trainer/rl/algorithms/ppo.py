"""PPO: a critic says what each token's return is expected to be, and the surprise is the advantage.

Source: PPO, arXiv 1707.06347; GAE, arXiv 1506.02438; Search-R1, arXiv 2503.09516, section 3.1. Beside the papers:

* An episode is one rollout. Its reward is on the last sampled token, less the KL to the start policy (k1) on each
  (Search-R1, eq. 1).
* Observations are no actions: GAE, whitening and the value loss step over them. ``loss.gae_over: all`` has them in all
  three, as in Search-R1's code.
* Advantages are whitened over the whole step, not over a minibatch, so that the number of minibatches and of processes
  changes nothing.
* Values are clipped (``loss.value_clip``) as in OpenAI's code; policy and critic share no weights, so that there is no
  coefficient between their losses.
* Left out: the adaptive KL penalty (PPO, section 4), and clipping at 3 for negative advantages (dual-clip, verl's).
"""

from typing import ClassVar

from searchr1.trainer.rl.advantages import gae, token_rewards, whiten
from searchr1.trainer.rl.algorithms.base import Advantages, Algorithm, OldPolicyStats, register
from searchr1.trainer.rl.losses import kl_k1


@register("ppo")
class PPO(Algorithm):
    """Advantages are those of GAE over the critic's values, whitened; returns are the critic's targets."""

    __slots__ = ()
    needs_critic: ClassVar[bool] = True
    verl_adv_estimator: ClassVar[str | None] = "gae"

    def advantages(self, old: OldPolicyStats) -> Advantages:
        """Return an advantage and a return for each token of ``value_mask``."""
        loss, mask = self.loss, old.value_mask
        kl = None if old.ref_logprobs is None else kl_k1(old.logprobs, old.ref_logprobs)
        rewards = token_rewards(old.rewards, kl, mask, loss.kl_coef)
        advantages, returns = gae(rewards, old.values, mask, loss.gamma, loss.lam)
        return Advantages(whiten(advantages, mask), returns)
