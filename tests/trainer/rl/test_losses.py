"""Losses: by hand, against loops over plain Python numbers and against TRL's, and what their gradients reach."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import pad

from searchr1.trainer.rl.advantages import gae, whiten
from searchr1.trainer.rl.losses import (
    MAX_LOG_RATIO,
    kl_k1,
    kl_k3,
    masked_mean,
    num_terms,
    policy_loss,
    truncated_importance,
    value_loss,
)
from searchr1.trainer.rl.sections import Over

NAN = math.nan
Tensors = dict[str, torch.Tensor]


def random_batch(seed: int = 0) -> Tensors:
    random = torch.Generator().manual_seed(seed)
    names = ("new", "old", "ref", "advantages", "values", "old_values", "returns")
    drawn = dict(zip(names, torch.randn(len(names), 5, 13, generator=random, dtype=torch.float64), strict=True))
    drawn |= {name: -drawn[name].abs() for name in ("new", "old", "ref")}
    mask = torch.rand(5, 13, generator=random) < 0.5
    mask[1] = torch.arange(13) == 4
    mask[3] = False
    return {**drawn, "mask": mask}


def grpo(batch: Tensors, new: torch.Tensor, over: Over = "token", denominator: float | None = None) -> torch.Tensor:
    """Policy loss and k3 loss together."""
    policy = policy_loss(
        new, batch["old"], batch["advantages"], batch["mask"], clip_high=0.28, over=over, denominator=denominator
    )
    return policy.loss + 0.1 * masked_mean(kl_k3(new, batch["ref"]), batch["mask"], over, denominator=denominator)


def gradient_of(loss: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    at = at.detach().clone().requires_grad_()
    value = loss(at)
    (gradient,) = torch.autograd.grad(value, at)
    return value.detach(), gradient


def test_masked_means_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN], [NAN, NAN, NAN]])
    mask = torch.tensor([[True, True, False], [True, False, False], [False, False, False]])
    assert float(masked_mean(x, mask)) == 3.0  # (1 + 2 + 6) / 3
    assert float(masked_mean(x, mask, "sequence")) == 3.75  # (1.5 + 6) / 2: the third trajectory has no token
    assert float(masked_mean(x, mask, "constant", denominator=3 * 4)) == 0.75  # 9 / (3 trajectories x 4)
    assert (num_terms(mask, "token"), num_terms(mask, "sequence")) == (3, 2)


def test_a_constant_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="denominator"):
        masked_mean(torch.zeros(1, 2), torch.ones(1, 2, dtype=torch.bool), "constant")


@pytest.mark.parametrize("over", ["token", "sequence"])
def test_no_token_means_zero(over: Over) -> None:
    batch = random_batch()
    batch["mask"] = torch.zeros(5, 13, dtype=torch.bool)
    loss, gradient = gradient_of(lambda new: grpo(batch, new, over), batch["new"])
    assert float(loss) == 0
    assert not gradient.any()
    policy = policy_loss(batch["new"], batch["old"], batch["advantages"], batch["mask"])
    assert (float(policy.clip_fraction), float(policy.approx_kl), float(policy.ratio_max)) == (0, 0, 0)
    value, clip_fraction = value_loss(batch["values"], batch["old_values"], batch["returns"], batch["mask"])
    assert (float(value), float(clip_fraction)) == (0, 0)


def test_policy_loss_by_hand() -> None:
    ratios = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.0]])
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0, 2.0]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    result = policy_loss(ratios.log(), torch.zeros(1, 5), advantages, mask, clip_low=0.2, clip_high=0.3)
    # -1.3 (clipped), -0.5, 1.5, 0.8 (clipped), -2: the sum is -1.5.
    assert float(result.loss) == pytest.approx(-0.3)
    assert float(result.clip_fraction) == pytest.approx(2 / 5)
    assert float(result.ratio_max) == pytest.approx(1.5)
    # (r - 1) - log r, summed: 0 over the differences, less 2 log 1.5 and 2 log 0.5.
    assert float(result.approx_kl) == pytest.approx(-2 * (math.log(1.5) + math.log(0.5)) / 5)


def test_one_advantage_for_a_trajectory_is_one_for_each_token() -> None:
    batch = random_batch()
    one = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    losses = [
        policy_loss(batch["new"], batch["old"], a, batch["mask"]).loss
        for a in (one, one[:, None], one[:, None].expand(5, 13))
    ]
    assert len(set(map(float, losses))) == 1


def test_weights_scale_tokens() -> None:
    batch = random_batch()
    weights = torch.rand(5, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = policy_loss(batch["new"], batch["old"], batch["advantages"], batch["mask"], weights=weights)
    wanted = policy_loss(batch["new"], batch["old"], batch["advantages"] * weights, batch["mask"])
    assert float(got.loss) == pytest.approx(float(wanted.loss))


def test_value_loss_by_hand() -> None:
    values, old, returns = torch.tensor([[0.9, 0.1, 0.4]]), torch.tensor([[0.2, 0.2, 0.2]]), torch.tensor([[1.0] * 3])
    loss, clip_fraction = value_loss(values, old, returns, torch.ones(1, 3, dtype=torch.bool), clip=0.5)
    # 0.9 is held at 0.7: 0.3^2 = 0.09 > 0.1^2. The others are within: 0.9^2 = 0.81, 0.6^2 = 0.36. Half of 1.26 / 3.
    assert float(loss) == pytest.approx(0.21)
    assert float(clip_fraction) == pytest.approx(1 / 3)


def test_a_value_that_overshot_towards_its_return_gets_no_gradient() -> None:
    old, returns, mask = torch.zeros(1, 2), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool)
    _, gradient = gradient_of(lambda v: value_loss(v, old, returns, mask, clip=0.5)[0], torch.tensor([[0.9, -0.9]]))
    assert gradient[0].tolist() == pytest.approx([0, -1.9 / 2])


def test_kl_estimates_by_hand() -> None:
    p, q = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    assert float(kl_k1(p, q)) == pytest.approx(math.log(2))
    assert float(kl_k3(p, q)) == pytest.approx(0.5 + math.log(2) - 1)
    assert float(kl_k3(p, p)) == 0


def test_k1_and_k3_are_unbiased() -> None:
    logits, ref = (torch.tensor(x, dtype=torch.float64) for x in ([0.3, -0.5, 1.0], [0.0, 0.4, 0.2]))
    p, q = logits.log_softmax(-1), ref.log_softmax(-1)
    value = float((p.exp() * (p - q)).sum())
    for estimate in (kl_k1, kl_k3):
        assert float((p.exp() * estimate(p, q)).sum()) == pytest.approx(value)


def test_k3_is_cut_where_the_policy_has_all_but_lost_a_token() -> None:
    far = torch.tensor([-200.0])
    value, gradient = gradient_of(lambda p: kl_k3(p, torch.tensor([-1.0])).sum(), far)
    assert float(value) == 10
    assert float(gradient) == 0
    assert math.isfinite(float(kl_k3(far, torch.tensor([-1.0]), cap=None)))


def test_an_impossible_token_keeps_the_policy_loss_finite() -> None:
    result = policy_loss(
        torch.zeros(1, 1), torch.full((1, 1), -1e4), -torch.ones(1, 1), torch.ones(1, 1, dtype=torch.bool)
    )
    assert float(result.ratio_max) == pytest.approx(math.exp(MAX_LOG_RATIO))
    assert math.isfinite(float(result.loss))


def test_importance_weights_by_hand() -> None:
    trainer = torch.tensor([[0.6, 0.2, 0.5, 0.9]]).log()
    engine = torch.tensor([[0.3, 0.5, 0.5, NAN]]).log()
    mask = torch.tensor([[True, True, True, False]])
    weights, gap = truncated_importance(trainer.requires_grad_(), engine, mask, cap=1.5)
    assert weights[0].tolist() == pytest.approx([1.5, 0.4, 1, 1])
    assert not weights.requires_grad
    assert float(gap.mean_abs) == pytest.approx((math.log(2) + math.log(2.5)) / 3)
    assert float(gap.max_abs) == pytest.approx(math.log(2.5))
    assert float(gap.kl) == pytest.approx((2 - 1 - math.log(2) + 0.4 - 1 - math.log(0.4)) / 3)
    assert float(gap.capped_fraction) == pytest.approx(1 / 3)


def test_without_a_cap_only_the_gap_is_told() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    weights, gap = truncated_importance(torch.tensor([[-1.0, -2.0]]), torch.tensor([[-1.5, -2.0]]), mask, None)
    assert torch.equal(weights, torch.ones(1, 2))
    assert float(gap.mean_abs) == pytest.approx(0.25)
    assert float(gap.capped_fraction) == 0


def slow_grpo(batch: Tensors, new: torch.Tensor, over: Over) -> float:
    per_row = []
    for b in range(5):
        terms = []
        for t in range(13):
            if not batch["mask"][b, t]:
                continue
            p, old, ref, a = (float(x[b, t]) for x in (new, batch["old"], batch["ref"], batch["advantages"]))
            ratio = math.exp(p - old)
            kl = min(10.0, math.exp(ref - p) - (ref - p) - 1)
            terms.append(-min(ratio * a, min(max(ratio, 0.8), 1.28) * a) + 0.1 * kl)
        per_row.append(terms)
    if over == "token":
        return sum(map(sum, per_row)) / sum(map(len, per_row))
    filled = [terms for terms in per_row if terms]
    return sum(sum(terms) / len(terms) for terms in filled) / len(filled)


@pytest.mark.parametrize("over", ["token", "sequence"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_equals_a_loop_over_tokens(over: Over, seed: int) -> None:
    batch = random_batch(seed)
    assert float(grpo(batch, batch["new"], over)) == pytest.approx(slow_grpo(batch, batch["new"], over), rel=1e-6)


def test_the_value_loss_equals_a_loop_over_tokens() -> None:
    batch = random_batch()
    terms = []
    for b, t in batch["mask"].nonzero().tolist():
        v, old, r = (float(batch[name][b, t]) for name in ("values", "old_values", "returns"))
        terms.append(max((v - r) ** 2, (min(max(v, old - 0.5), old + 0.5) - r) ** 2) / 2)
    loss, _ = value_loss(batch["values"], batch["old_values"], batch["returns"], batch["mask"])
    assert float(loss) == pytest.approx(sum(terms) / len(terms))


@pytest.mark.parametrize("over", ["token", "sequence"])
def test_perturbing_what_the_policy_did_not_sample_changes_neither_loss_nor_gradient(over: Over) -> None:
    batch = random_batch()
    mask = batch["mask"]
    loss, gradient = gradient_of(lambda new: grpo(batch, new, over), batch["new"])
    noise = torch.rand(5, 13, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    moved = {name: x if name == "mask" else torch.where(mask, x, x - 3 * noise) for name, x in batch.items()}
    moved_loss, moved_gradient = gradient_of(lambda new: grpo(moved, new, over), moved["new"])
    assert torch.equal(moved_loss, loss)
    assert torch.equal(moved_gradient, gradient)
    assert not gradient[~mask].any()
    assert gradient[mask].any()


def test_even_nan_outside_the_mask_reaches_no_policy_or_value_gradient() -> None:
    batch = random_batch()
    mask = batch["mask"]
    spoilt = {name: x if name == "mask" else x.masked_fill(~mask, NAN) for name, x in batch.items()}
    for wanted, got in zip(_gradients(batch), _gradients(spoilt), strict=True):
        assert torch.equal(got, wanted)


def _gradients(batch: Tensors) -> list[torch.Tensor]:
    """Loss and gradient of the policy, then of the values."""
    old, advantages, old_values, returns = (batch[name] for name in ("old", "advantages", "old_values", "returns"))
    policy = gradient_of(lambda new: policy_loss(new, old, advantages, batch["mask"]).loss, batch["new"])
    value = gradient_of(lambda values: value_loss(values, old_values, returns, batch["mask"])[0], batch["values"])
    return [*policy, *value]


@pytest.mark.parametrize("over", ["token", "sequence"])
def test_padding_and_batch_order_change_nothing(over: Over) -> None:
    batch = random_batch()
    loss, gradient = gradient_of(lambda new: grpo(batch, new, over), batch["new"])
    padded = {name: pad(x, (0, 6, 0, 2)) for name, x in batch.items()}
    padded_loss, padded_gradient = gradient_of(lambda new: grpo(padded, new, over), padded["new"])
    torch.testing.assert_close(padded_loss, loss)
    torch.testing.assert_close(padded_gradient, pad(gradient, (0, 6, 0, 2)))
    order = torch.tensor([4, 2, 0, 3, 1])
    shuffled = {name: x[order] for name, x in batch.items()}
    shuffled_loss, shuffled_gradient = gradient_of(lambda new: grpo(shuffled, new, over), shuffled["new"])
    torch.testing.assert_close(shuffled_loss, loss)
    torch.testing.assert_close(shuffled_gradient, gradient[order])


@pytest.mark.parametrize("over", ["token", "sequence", "constant"])
def test_passes_add_up_to_the_step(over: Over) -> None:
    batch = random_batch()
    denominator = 5 * 13 if over == "constant" else num_terms(batch["mask"], over)
    loss, gradient = gradient_of(lambda new: grpo(batch, new, over, denominator), batch["new"])
    parts = []
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        part = {name: x[rows] for name, x in batch.items()}
        parts.append(gradient_of(lambda new, part=part: grpo(part, new, over, denominator), part["new"]))  # type: ignore[misc]
    torch.testing.assert_close(sum(loss for loss, _ in parts), loss)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), gradient)


def test_gradients_reach_the_policy_alone() -> None:
    batch = random_batch()
    leaves = {name: x.requires_grad_() for name, x in batch.items() if name != "mask"}
    policy_loss(
        leaves["new"], leaves["old"], leaves["advantages"], batch["mask"], weights=leaves["ref"]
    ).loss.backward()  # type: ignore[no-untyped-call]
    value_loss(leaves["values"], leaves["old_values"], leaves["returns"], batch["mask"])[0].backward()  # type: ignore[no-untyped-call]
    assert {name for name, x in leaves.items() if x.grad is not None} == {"new", "values"}


# The tensors below went once through TRL's own code in float64, and the numbers are what came out:
# ``GRPOTrainer._compute_loss`` of TRL 1.16.0, and ``PPOTrainer.loss`` and ``compute_advantages`` of TRL 0.11.4.


def t(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


NEW = t(
    [[-0.9, -1.6, -0.3, -2.2, -0.7, -1.1], [-0.5, -0.4, -1.9, -0.8, -3.0, -0.2], [-1.3, -0.6, -2.5, -0.1, -0.9, -1.7]]
)
OLD = t(
    [[-1.0, -1.2, -0.8, -2.0, -0.7, -1.5], [-0.9, -0.3, -1.5, -1.4, -2.6, -0.2], [-1.0, -0.9, -2.5, -0.6, -0.5, -1.8]]
)
REF = t(
    [[-1.1, -1.4, -0.6, -1.9, -0.9, -1.3], [-0.7, -0.5, -1.6, -1.2, -2.4, -0.4], [-0.8, -1.0, -2.1, -0.3, -0.7, -1.2]]
)
ENGINE = t(
    [[-1.1, -1.3, -0.7, -1.7, -0.8, -1.4], [-0.8, -0.5, -1.4, -1.6, -2.5, -0.3], [-1.2, -0.8, -2.3, -0.9, -0.4, -1.6]]
)
MASK = t([[1, 1, 0, 0, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 0, 1, 1, 0]]).bool()
PER_ROLLOUT = t([1.2, -0.7, -0.5])
VALUES = t([[0.2, 0.5, 0.1, 0.9, 0.4, 0.6], [0.3, 0.7, 0.2, 0.8, 0.5, 0.1], [0.6, 0.4, 0.9, 0.3, 0.2, 0.7]])
OLD_VALUES = t([[0.3, 0.1, 0.2, 0.5, 0.9, 0.5], [0.3, 0.1, 0.8, 0.4, 0.5, 0.2], [0.2, 0.4, 0.3, 0.5, 0.3, 0.7]])
REWARDS = t(
    [
        [-0.01, 0.02, -0.03, 0.01, -0.02, 1.0],
        [0.02, -0.01, 0.3, 0.04, 0.05, 0.06],
        [0.01, 0.02, -0.02, 0.03, 0.1, -0.05],
    ]
)


@pytest.mark.parametrize(
    ("over", "denominator", "kl_coef", "wanted"),
    [
        ("sequence", None, 0.0, 0.03156469429155188),  # loss_type grpo
        ("sequence", None, 0.04, 0.03298904106343548),
        ("token", None, 0.0, -0.09085650406094188),  # bnpo; dapo in one batch
        ("token", None, 0.04, -0.08949699694885256),
        ("constant", 3 * 6, 0.0, -0.050475835589412155),  # dr_grpo, max_completion_length 6
        ("constant", 3 * 6, 0.04, -0.049720553860473644),
    ],
)
def test_grpo_equals_trl(over: Over, denominator: float | None, kl_coef: float, wanted: float) -> None:
    policy = policy_loss(NEW, OLD, PER_ROLLOUT, MASK, over=over, denominator=denominator)
    kl = masked_mean(kl_k3(NEW, REF), MASK, over, denominator=denominator)
    assert float(policy.loss + kl_coef * kl) == pytest.approx(wanted, rel=1e-9)
    assert float(policy.clip_fraction) == pytest.approx(0.4)


def test_grpos_gradient_equals_trls() -> None:
    _, gradient = gradient_of(
        lambda new: policy_loss(new, OLD, PER_ROLLOUT, MASK).loss + 0.04 * masked_mean(kl_k3(new, REF), MASK), NEW
    )
    wanted = [
        [-0.13189543318138963, -0.08132401655691739, 0.0, 0.0, -0.11927492301231192, 0.0007250769876880722],
        [0.105152805822577, 0.06371926959037331, -0.001399435230304012, 0.0, 0.0, 0.0],
        [-0.002594885082800513, 0.0, 0.0, 0.0831611405226945, -0.0008856110326406798, 0.0],
    ]
    torch.testing.assert_close(gradient, t(wanted))


def test_clip_higher_and_truncated_importance_equal_trls() -> None:
    assert float(policy_loss(NEW, OLD, PER_ROLLOUT, MASK, clip_high=0.28).loss) == pytest.approx(-0.10045650406094189)
    weights, _ = truncated_importance(OLD, ENGINE, MASK, 1.1)
    got = policy_loss(NEW, OLD, PER_ROLLOUT, MASK, weights=weights).loss
    assert float(got) == pytest.approx(-0.11095473572081978, rel=1e-6)


def test_ppo_equals_trl() -> None:
    everywhere = torch.ones_like(MASK)
    advantages, returns = gae(REWARDS, OLD_VALUES, everywhere, 0.95, 0.9)
    wanted_returns = [
        [0.5769337947390625, 0.6753611634374999, 0.7442820625, 0.8500375, 0.8825, 1.0],
        [0.4519942831526874, 0.4941453604124999, 0.5007548074999999, 0.19035649999999998, 0.1203, 0.06],
        [0.21226642732734366, 0.19212447640624988, 0.16798184374999986, 0.16430625, 0.12375, -0.05],
    ]
    torch.testing.assert_close(returns, t(wanted_returns).float())
    policy = policy_loss(NEW, OLD, whiten(advantages, everywhere), MASK)
    assert float(policy.loss) == pytest.approx(-0.216804270825857, rel=1e-6)
    assert float(policy.clip_fraction) == pytest.approx(0.4)
    loss, clip_fraction = value_loss(VALUES, OLD_VALUES, returns, MASK, clip=0.3)
    assert float(loss) == pytest.approx(0.047060256729888436, rel=1e-6)
    assert float(clip_fraction) == pytest.approx(0.1)


def test_gae_over_sampled_tokens_equals_trls_on_those_tokens_alone() -> None:
    _, returns = gae(REWARDS, OLD_VALUES, MASK, 0.95, 0.9)
    assert returns[0][MASK[0]].tolist() == pytest.approx([0.7348320625, 0.8600375, 0.8825, 1.0])
    assert returns[1][MASK[1]].tolist() == pytest.approx([0.3052375, 0.3225, 0.3])
    assert returns[2][MASK[2]].tolist() == pytest.approx([0.18062, 0.144, 0.1])
