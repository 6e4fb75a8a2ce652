"""Every algorithm of the registry on the same four rollouts, held to the same rules; a new one adds to ``BY_HAND``.

    rollout  group  reward  tokens (· an observation or padding)  KL of each, k1
    0        7      1       a b · · c                             0.2 0 · · 0.4
    1        7      0       a · b · ·                             0.1 · 0.3
    2        3      1       a b c · ·                             0 0 0
    3        3      1       a · · · ·                             0.5

The KL counts 0.1 times and nothing is discounted. The critic, where there is one, says 0.5 of each token, but 0.25 of
those of rollout 1.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.algorithms import base
from searchr1.trainer.rl.algorithms.base import (
    ALGORITHMS,
    Advantages,
    Algorithm,
    OldPolicyStats,
    PolicyTokens,
    algorithm_named,
    register,
)
from searchr1.trainer.rl.sections import LossSection

MASK = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]).bool()
KL = torch.tensor([[0.2, 0, 0, 0, 0.4], [0.1, 0, 0.3, 0, 0], [0, 0, 0, 0, 0], [0.5, 0, 0, 0, 0]])
HALF = 0.5**0.5


def normalized(values: Sequence[float]) -> list[float]:
    """Return ``values`` less their mean, over their standard deviation (n - 1)."""
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    return [(value - mean) / deviation for value in values]


BY_HAND: dict[str, list[float]] = {
    # Group 7: rewards 1 and 0, mean 1/2, standard deviation (n - 1) √½. Group 3: equal rewards.
    "grpo": [HALF, HALF, HALF, -HALF, -HALF, 0, 0, 0, 0],
    # Sums of rewards from each token on, less its value: 1 - 0.02 - 0.04 - 0.5 = 0.44, and so on.
    "ppo": normalized([0.44, 0.46, 0.46, -0.29, -0.28, 0.5, 0.5, 0.5, 0.45]),
    # Sums of rewards from each token on, as in PPO, but without values.
    "reinforce_plus_plus": normalized([0.94, 0.96, 0.96, -0.04, -0.03, 1, 1, 1, 0.95]),
    # Rewards less the KL: 1 - 0.06 = 0.94, -0.04, 1, 0.95; each less that of its one sibling.
    "rloo": [0.98, 0.98, 0.98, -0.98, -0.98, 0.05, 0.05, 0.05, -0.05],
}
"""The advantages of the nine sampled tokens, rollout by rollout."""

each_algorithm = pytest.mark.parametrize("name", ALGORITHMS.all())


def opened(name: str, **loss: object) -> Algorithm:
    fields = {"kl_coef": 0.1, "entropy_coef": 0.0} | loss
    return algorithm_named(name)(LossSection.model_validate(fields), group_size=2)


def stats(has_kl: bool = True) -> OldPolicyStats:
    old = torch.full(MASK.shape, -1.0)
    values = torch.full(MASK.shape, 0.5)
    values[1] = 0.25
    return OldPolicyStats(
        rewards=torch.tensor([1.0, 0.0, 1.0, 1.0]),
        groups=torch.tensor([7, 7, 3, 3]),
        mask=MASK,
        value_mask=MASK,
        logprobs=torch.where(MASK, old, 0.0),
        ref_logprobs=torch.where(MASK, old - KL, 0.0) if has_kl else None,
        values=torch.where(MASK, values, 0.0),
        weights=torch.ones(MASK.shape),
    )


def tokens(old: OldPolicyStats, advantages: torch.Tensor) -> PolicyTokens:
    """The first pass of a step: nothing has moved yet."""
    return PolicyTokens(
        logprobs=old.logprobs.clone().requires_grad_(),
        entropies=torch.full(MASK.shape, 0.7).requires_grad_(),
        old_logprobs=old.logprobs,
        ref_logprobs=old.ref_logprobs,
        advantages=advantages,
        weights=old.weights,
        mask=old.mask,
        denominator=9.0,
    )


def gradient(algorithm: Algorithm, given: PolicyTokens) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss, and its gradients into logprobs and entropies."""
    total, _ = algorithm.policy_loss(given)
    into = torch.autograd.grad(total, (given.logprobs, given.entropies), allow_unused=True)
    first, second = (torch.zeros(MASK.shape) if grad is None else grad for grad in into)
    return total.detach(), first, second


def test_every_algorithm_has_a_row() -> None:
    assert set(BY_HAND) == set(ALGORITHMS.all())


@each_algorithm
def test_advantages_by_hand(name: str) -> None:
    result = opened(name).advantages(stats())
    assert result.advantages[MASK].tolist() == pytest.approx(BY_HAND[name], abs=1e-5)


@each_algorithm
def test_results_have_an_entry_per_token_and_no_gradient(name: str) -> None:
    result = opened(name).advantages(stats())
    for tensor in (result.advantages, result.returns):
        assert tensor.shape == MASK.shape
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
    assert all(isinstance(value, float) for value in result.metrics.values())


@each_algorithm
def test_tokens_that_were_not_sampled_change_no_advantage(name: str) -> None:
    old = stats()
    noise = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(0))

    def spoilt(tensor: torch.Tensor) -> torch.Tensor:
        return torch.where(MASK, tensor, noise)

    assert old.ref_logprobs is not None
    other = replace(
        old, logprobs=spoilt(old.logprobs), ref_logprobs=spoilt(old.ref_logprobs), values=spoilt(old.values)
    )
    one, two = opened(name).advantages(old), opened(name).advantages(other)
    assert torch.equal(one.advantages[MASK], two.advantages[MASK])
    assert torch.equal(one.returns[MASK], two.returns[MASK])


@each_algorithm
def test_tokens_that_were_not_sampled_are_in_no_loss(name: str) -> None:
    algorithm, old = opened(name, entropy_coef=0.1), stats()
    given = tokens(old, algorithm.advantages(old).advantages)
    loss, into_logprobs, into_entropies = gradient(algorithm, given)
    assert not into_logprobs[~MASK].any()
    assert not into_entropies[~MASK].any()
    noise = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(0))
    noisy = replace(
        given,
        logprobs=torch.where(MASK, given.logprobs, noise).detach().requires_grad_(),
        advantages=torch.where(MASK, given.advantages, noise),
    )
    assert torch.equal(gradient(algorithm, noisy)[0], loss)


@each_algorithm
def test_the_gradient_makes_good_tokens_likelier_and_bad_ones_less_likely(name: str) -> None:
    algorithm, old = opened(name, kl_coef=0.0), stats(has_kl=False)
    advantages = algorithm.advantages(old).advantages
    _, into_logprobs, _ = gradient(algorithm, tokens(old, advantages))
    assert advantages[0, 0] > 0 > advantages[1, 0]
    assert torch.equal(into_logprobs[MASK].sign(), -advantages[MASK].sign())


@each_algorithm
def test_equal_rewards_teach_nothing_and_give_no_nan(name: str) -> None:
    algorithm = opened(name, kl_coef=0.0)
    old = replace(stats(has_kl=False), rewards=torch.ones(4), values=torch.where(MASK, 0.5, 0.0))
    advantages = algorithm.advantages(old).advantages
    assert torch.equal(advantages[MASK], torch.zeros(9))
    loss, into_logprobs, _ = gradient(algorithm, tokens(old, advantages))
    assert float(loss) == 0.0
    assert not into_logprobs.any()


@each_algorithm
def test_a_lost_sibling_or_an_empty_rollout_gives_no_nan(name: str) -> None:
    algorithm, old = opened(name), stats()
    mask = MASK.clone()
    mask[3] = False
    for other in (replace(old, groups=torch.tensor([7, 7, 3, 4])), replace(old, mask=mask, value_mask=mask)):
        result = algorithm.advantages(other)
        assert result.advantages.isfinite().all()
        assert result.returns.isfinite().all()
        loss, into_logprobs, _ = gradient(algorithm, tokens(other, result.advantages))
        assert loss.isfinite()
        assert into_logprobs.isfinite().all()


@each_algorithm
@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_rollouts_that_may_be_left_out_have_no_gradient(name: str, kl_coef: float) -> None:
    algorithm, old = opened(name, kl_coef=kl_coef), stats(has_kl=kl_coef > 0)
    advantages = algorithm.advantages(old).advantages
    has_gradient = algorithm.has_gradient(advantages)
    assert has_gradient.shape == (4,)
    assert has_gradient.dtype == torch.bool
    _, into_logprobs, _ = gradient(algorithm, tokens(old, advantages))
    assert not into_logprobs[~has_gradient].any()
    assert opened(name, entropy_coef=0.1).has_gradient(advantages).all()


@pytest.mark.parametrize("name", [name for name in ALGORITHMS.all() if algorithm_named(name).needs_critic])
def test_a_critic_moves_towards_the_returns(name: str) -> None:
    algorithm, old = opened(name), stats()
    returns = algorithm.advantages(old).returns
    values = old.values.clone().requires_grad_()
    loss, _ = algorithm.critic_loss(values, old.values, returns, MASK, 9.0)
    (into_values,) = torch.autograd.grad(loss, values)
    assert torch.equal(into_values[MASK].sign(), (values - returns)[MASK].sign())
    assert not into_values[~MASK].any()


def test_a_name_belongs_to_one_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "ALGORITHMS", base.ALGORITHMS.copy())

    @register("mine")
    class Mine(Algorithm):
        def advantages(self, old: OldPolicyStats) -> Advantages:
            return Advantages(old.values, old.values)

    assert algorithm_named("mine") is Mine
    assert register("mine")(Mine) is Mine
    with pytest.raises(ValueError, match="two algorithms are called 'grpo'"):
        register("grpo")(Mine)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"no algorithm 'dpo'; there are .*grpo, ppo"):
        algorithm_named("dpo")
