"""Advantages: by hand, against loops over plain Python numbers, and at the edges."""

import math
import statistics

import pytest
import torch
from torch.nn.functional import pad

from searchr1.trainer.rl.advantages import gae, group_advantages, token_rewards, whiten

NAN = math.nan


def slow_gae(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The definition, sum over k of (gamma lam)^k delta, on each row's masked tokens taken out of it."""
    advantages, returns = torch.zeros(mask.shape), torch.zeros(mask.shape)
    for b in range(mask.shape[0]):
        at = [t for t in range(mask.shape[1]) if mask[b, t]]
        r, v = [float(rewards[b, t]) for t in at], [float(values[b, t]) for t in at] + [0.0]
        deltas = [r[i] + gamma * v[i + 1] - v[i] for i in range(len(at))]
        for i, t in enumerate(at):
            advantages[b, t] = sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[i:]))
            returns[b, t] = advantages[b, t] + v[i]
    return advantages, returns


def random_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    rewards, values = torch.randn(2, 6, 17, generator=random)
    mask = torch.rand(6, 17, generator=random) < 0.5
    mask[2] = False
    mask[3] = torch.arange(17) == 9
    return rewards, values, mask


def test_gae_by_hand_steps_over_an_observation() -> None:
    rewards = torch.tensor([[0.0, NAN, NAN, 1.0]])
    values = torch.tensor([[0.5, NAN, NAN, 0.8]])
    mask = torch.tensor([[True, False, False, True]])
    advantages, returns = gae(rewards, values, mask, 0.9, 0.5)
    # Last: 1 - 0.8 = 0.2. First: 0 + 0.9 * 0.8 - 0.5 = 0.22, plus 0.9 * 0.5 * 0.2 = 0.09.
    assert advantages[0].tolist() == pytest.approx([0.31, 0, 0, 0.2])
    assert returns[0].tolist() == pytest.approx([0.81, 0, 0, 1.0])


def test_gae_of_the_paper_is_the_outcome_less_the_value() -> None:
    mask = torch.tensor([[True, True, False, True]])
    final, values = torch.tensor([1.0]), torch.tensor([[0.2, 0.6, 9.0, 0.7]])
    advantages, returns = gae(token_rewards(final, None, mask, 0.0), values, mask, 1.0, 1.0)
    assert advantages[0].tolist() == pytest.approx([0.8, 0.4, 0, 0.3])
    assert returns[0].tolist() == pytest.approx([1, 1, 0, 1])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.95, 0.9), (0.9, 0.0), (0.0, 1.0)])
def test_gae_equals_the_definition(gamma: float, lam: float) -> None:
    rewards, values, mask = random_batch()
    for got, wanted in zip(
        gae(rewards, values, mask, gamma, lam), slow_gae(rewards, values, mask, gamma, lam), strict=True
    ):
        torch.testing.assert_close(got, wanted)


def test_gae_over_all_is_that_of_adjacent_tokens() -> None:
    rewards, values, _ = random_batch()
    everywhere = torch.ones(6, 17, dtype=torch.bool)
    advantages, _ = gae(rewards, values, everywhere, 0.95, 0.9)
    torch.testing.assert_close(advantages, slow_gae(rewards, values, everywhere, 0.95, 0.9)[0])


def test_gae_reads_nothing_outside_the_mask_and_ignores_padding_and_order() -> None:
    rewards, values, mask = random_batch()
    wanted = gae(rewards, values, mask, 0.95, 0.9)
    spoilt = gae(rewards.masked_fill(~mask, NAN), values.masked_fill(~mask, NAN), mask, 0.95, 0.9)
    padded = gae(pad(rewards, (0, 5)), pad(values, (0, 5)), pad(mask, (0, 5)), 0.95, 0.9)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = gae(rewards[order], values[order], mask[order], 0.95, 0.9)
    for number in range(2):
        assert torch.equal(spoilt[number], wanted[number])
        assert torch.equal(padded[number][:, :17], wanted[number])
        assert not padded[number][:, 17:].any()
        assert torch.equal(shuffled[number], wanted[number][order])


def test_gae_carries_no_gradient() -> None:
    rewards, values, mask = random_batch()
    advantages, returns = gae(rewards, values.requires_grad_(), mask, 1.0, 1.0)
    assert not advantages.requires_grad
    assert not returns.requires_grad


def test_token_rewards_by_hand() -> None:
    mask = torch.tensor([[True, False, True, False], [False, True, False, True], [False, False, False, False]])
    kl = torch.tensor([[0.5, NAN, -0.2, 7.0], [3.0, 0.1, 3.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    rewards = token_rewards(torch.tensor([1.0, 0.0, 1.0]), kl, mask, 0.1)
    # 1 + 0.1 * 0.2 = 1.02 on the last sampled token; a trajectory without any gets nothing.
    assert rewards.tolist() == [pytest.approx([-0.05, 0, 1.02, 0]), pytest.approx([0, -0.01, 0, 0]), [0, 0, 0, 0]]


def test_whitening_by_hand() -> None:
    x = torch.tensor([[1.0, NAN, 2.0], [3.0, 4.0, NAN]])
    mask = torch.tensor([[True, False, True], [True, True, False]])
    # Mean 2.5; squares 2.25 + 0.25 + 0.25 + 2.25 = 5, over 3 or over 4.
    for unbiased, std in ((True, math.sqrt(5 / 3)), (False, math.sqrt(5 / 4))):
        white = whiten(x, mask, unbiased=unbiased)
        assert white[mask].tolist() == pytest.approx([-1.5 / std, -0.5 / std, 0.5 / std, 1.5 / std])
        assert not white[~mask].any()


@pytest.mark.parametrize("num_tokens", [0, 1, 12])
def test_equal_entries_whiten_to_zero(num_tokens: int) -> None:
    mask = (torch.arange(12) < num_tokens).reshape(3, 4)
    assert torch.equal(whiten(torch.full((3, 4), 0.1), mask), torch.zeros(3, 4))


def test_whitened_entries_have_mean_zero_and_variance_one() -> None:
    rewards, _, mask = random_batch()
    chosen = whiten(100 + 7 * rewards, mask)[mask]
    assert float(chosen.mean()) == pytest.approx(0, abs=1e-5)
    assert float(chosen.var()) == pytest.approx(1, abs=1e-4)


def test_group_advantages_by_hand() -> None:
    rewards = torch.tensor([1.0, 0.2, 0.0, 0.6, 0.0])
    groups = torch.tensor([7, 3, 7, 3, 7])
    # Group 7: 1, 0, 0. Mean 1/3, squares 4/9 + 1/9 + 1/9 = 2/3; std sqrt(1/3). Group 3: mean 0.4, std sqrt(0.08).
    std7, std3 = math.sqrt(1 / 3) + 1e-6, math.sqrt(0.08) + 1e-6
    wanted = [2 / 3 / std7, -0.2 / std3, -1 / 3 / std7, 0.2 / std3, -1 / 3 / std7]
    assert group_advantages(rewards, groups).tolist() == pytest.approx(wanted)
    biased = group_advantages(rewards, groups, unbiased=False)
    assert float(biased[0]) == pytest.approx(2 / 3 / (math.sqrt(2 / 9) + 1e-6))
    unscaled = group_advantages(rewards, groups, scale=False)
    assert unscaled.tolist() == pytest.approx([2 / 3, -0.2, -1 / 3, 0.2, -1 / 3])


def test_group_advantages_equal_a_loop_over_groups() -> None:
    random = torch.Generator().manual_seed(1)
    rewards, groups = torch.rand(40, generator=random), torch.randint(0, 6, (40,), generator=random)
    got = group_advantages(rewards, groups)
    for group in set(groups.tolist()):
        of_group = rewards[groups == group].tolist()
        mean, std = statistics.mean(of_group), statistics.stdev(of_group)
        assert got[groups == group].tolist() == pytest.approx([(r - mean) / (std + 1e-6) for r in of_group], abs=1e-5)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0])
def test_equal_rewards_and_groups_of_one_teach_nothing(reward: float, scale: bool) -> None:
    for size in range(1, 9):
        rewards = torch.tensor([reward] * size + [0.7], dtype=torch.float64)
        groups = torch.tensor([0] * size + [1])
        assert torch.equal(group_advantages(rewards, groups, scale=scale), torch.zeros(size + 1))


def test_no_rollouts_have_no_advantages() -> None:
    assert group_advantages(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)


def test_a_negative_reward_is_compared_like_any_other() -> None:
    assert group_advantages(torch.tensor([-1.0, -3.0]), torch.tensor([0, 0]), scale=False).tolist() == [1.0, -1.0]
