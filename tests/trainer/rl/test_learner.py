"""The update of a step: it moves the policy by what it sampled, and by nothing else."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from searchr1.loop.types import Status
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.algorithms.base import ALGORITHMS
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.policy import Policy, TokenStats
from searchr1.trainer.rl.samples import Sample
from tests.support.tiny_model import write_tiny_model

ALONE = ProcessGroup(torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model, for ``Learner`` to start from."""
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def config(algorithm: str = "grpo", **sections: dict[str, Any]) -> TrainConfig:
    fields: dict[str, Any] = {
        "algorithm": algorithm,
        "model": "none",
        "data": "atlas",
        "retriever": "index:none",
        "out_dir": "none",
        "num_steps": 4,
        "rollout": {"group_size": 2},
        "loss": {"kl_coef": 0.01, "entropy_coef": 0.001} | sections.get("loss", {}),
        "optimizer": {"dtype": "float32", "lr": 1e-3, "critic_lr": 1e-3, "warmup": 0.0, "num_minibatches": 1}
        | sections.get("optimizer", {}),
    }
    return TrainConfig.model_validate(fields)


def samples(num: int = 6, seed: int = 0) -> list[Sample]:
    """Rollouts with a prompt, a completion, an observation and a completion, of different lengths."""
    random = torch.Generator().manual_seed(seed)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(10, 290, (count,), generator=random).tolist())

    made = []
    for number in range(num):
        first, second, third = 5 + number, 9 + 2 * number, 4 + number % 3
        mask = (False,) * 12 + (True,) * first + (False,) * second + (True,) * third
        made.append(
            Sample(
                ids=ids(len(mask)),
                loss_mask=mask,
                engine_logprobs=(-1.0,) * len(mask),
                has_engine_logprob=mask,
                num_prompt_tokens=12,
                reward=float(number % 3 == 0),
                group=number // 2,
                policy_version=0,
                status=Status.COMPLETED,
                num_searches=1,
                num_turns=2,
                num_invalid=0,
            )
        )
    return made


def learned(
    model: Path, chosen: TrainConfig, rollouts: list[Sample], steps: int = 1
) -> tuple[Learner, dict[str, float]]:
    learner = Learner(chosen, model, ALONE, pad_id=0)
    metrics: dict[str, float] = {}
    for step in range(steps):
        metrics = learner.update(rollouts, step)
    return learner, metrics


def distance(one: Learner, other: Learner) -> float:
    """Return the distance of their policies' weights, the root of the summed squares."""
    pairs = zip(one.policy.parameters(), other.policy.parameters(), strict=True)
    return math.sqrt(sum(float((a - b).detach().square().sum()) for a, b in pairs))


@pytest.mark.parametrize("algorithm", ALGORITHMS.all())
def test_an_update_makes_the_rewarded_rollouts_likelier(model: Path, algorithm: str) -> None:
    chosen = config(algorithm, loss={"kl_coef": 0.0, "entropy_coef": 0.0}, optimizer={"lr": 1e-4})
    rollouts = samples()
    before, after = Learner(chosen, model, ALONE, pad_id=0), learned(model, chosen, rollouts, steps=3)[0]

    def gain(sample: Sample) -> float:
        ids, mask = torch.tensor([sample.ids]), torch.tensor([sample.loss_mask])
        with torch.no_grad():
            return float((after.policy(ids, mask).logprobs - before.policy(ids, mask).logprobs).sum())

    assert gain(rollouts[0]) > 0
    assert gain(rollouts[1]) < 0


@pytest.mark.parametrize("algorithm", ALGORITHMS.all())
@pytest.mark.parametrize("over", ["token", "sequence", "constant"])
def test_the_size_of_passes_changes_nothing(model: Path, algorithm: str, over: str) -> None:
    whole = config(algorithm, loss={"over": over}, optimizer={"num_minibatches": 2})
    small = config(algorithm, loss={"over": over}, optimizer={"num_minibatches": 2, "max_tokens_per_pass": 80})
    (one, one_metrics), (other, other_metrics) = learned(model, whole, samples()), learned(model, small, samples())
    # Adam divides by the gradient's size, so an entry whose gradient is all rounding moves at random.
    assert distance(one, other) < 0.02 * distance(one, Learner(whole, model, ALONE, pad_id=0))
    for name, value in one_metrics.items():
        assert other_metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("algorithm", ALGORITHMS.all())
def test_observations_carry_no_gradient(model: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The update is the same to the last bit with other model outputs on tokens that were not sampled."""
    chosen = config(algorithm)
    plain, plain_metrics = learned(model, chosen, samples())
    forward = Policy.forward

    def perturbed(self: Any, ids: torch.Tensor, mask: torch.Tensor) -> TokenStats:
        stats = forward(self, ids, mask)
        elsewhere = ~mask[:, 1:]
        noise = torch.randn(stats.logprobs.shape)
        return TokenStats(
            torch.where(elsewhere, stats.logprobs + noise * 3, stats.logprobs),
            torch.where(elsewhere, stats.entropy + noise.abs() * 3, stats.entropy),
        )

    monkeypatch.setattr(Policy, "forward", perturbed)
    noisy, noisy_metrics = learned(model, chosen, samples())
    assert distance(plain, noisy) == 0.0
    assert noisy_metrics == plain_metrics


def test_what_an_algorithm_measures_is_logged(model: Path) -> None:
    _, metrics = learned(model, config("reinforce_plus_plus", loss={"kl_coef": 0.0}), samples(3))
    # One of three rollouts was right; they have 5 + 4, 6 + 5 and 7 + 6 sampled tokens.
    assert metrics["return_mean"] == pytest.approx(9 / 33)


def test_without_the_mask_observations_are_trained_on(model: Path) -> None:
    masked, _ = learned(model, config(), samples())
    unmasked, _ = learned(model, config(loss={"mask_observations": False}), samples())
    assert distance(masked, unmasked) > 1e-5


def test_equal_rewards_move_grpo_by_the_entropy_bonus_alone(model: Path) -> None:
    rollouts = [replace(sample, reward=1.0) for sample in samples()]
    still, metrics = learned(
        model, config(loss={"kl_coef": 0.0, "entropy_coef": 0.0}, optimizer={"weight_decay": 0.0}), rollouts
    )
    assert distance(still, Learner(config(), model, ALONE, pad_id=0)) == 0.0
    assert metrics["grad_norm"] == 0.0


@pytest.mark.parametrize("over", ["token", "sequence", "constant"])
def test_rollouts_without_a_gradient_may_be_left_out(model: Path, over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = samples()  # The last two have the same reward.
    chosen = config(loss={"kl_coef": 0.0, "entropy_coef": 0.0, "over": over})
    passed: list[int] = []
    forward = Policy.forward

    def counted(self: Policy, ids: torch.Tensor, mask: torch.Tensor) -> TokenStats:
        if torch.is_grad_enabled():
            passed.append(len(ids))
        return forward(self, ids, mask)

    monkeypatch.setattr(Policy, "forward", counted)
    brief = learned(model, chosen, rollouts)[0]
    assert sum(passed) == 4
    passed.clear()
    monkeypatch.setattr(Learner, "_with_gradient", lambda self, estimates, rows: rows)
    full = learned(model, chosen, rollouts)[0]
    assert sum(passed) == 6
    assert distance(brief, full) < 1e-4 * distance(full, Learner(chosen, model, ALONE, pad_id=0))


def test_a_step_in_which_all_rewards_are_equal_moves_nothing(model: Path) -> None:
    section = {"num_minibatches": 2, "weight_decay": 0.0}
    chosen = config(loss={"kl_coef": 0.0, "entropy_coef": 0.0}, optimizer=section)
    after, metrics = learned(model, chosen, [replace(sample, reward=1.0) for sample in samples()])
    assert distance(after, Learner(chosen, model, ALONE, pad_id=0)) == 0.0
    assert metrics["policy_loss"] == 0.0


def test_the_policy_waits_while_the_critic_learns_alone(model: Path) -> None:
    chosen = config("ppo", optimizer={"critic_only_steps": 1})
    fresh = Learner(chosen, model, ALONE, pad_id=0)
    one, _ = learned(model, chosen, samples(), steps=1)
    assert distance(one, fresh) == 0.0
    assert one.critic is not None
    assert one.critic.head.weight.any()
    two, _ = learned(model, chosen, samples(), steps=2)
    assert distance(two, fresh) > 0.0


@pytest.mark.parametrize("algorithm", ALGORITHMS.all())
def test_a_restored_learner_goes_on_to_the_last_bit(model: Path, algorithm: str, tmp_path: Path) -> None:
    chosen = config(algorithm, optimizer={"num_minibatches": 2})
    through, wanted = learned(model, chosen, samples(), steps=3)
    stopped, _ = learned(model, chosen, samples(), steps=2)
    torch.save(stopped.state(), tmp_path / "state.pt")
    resumed = Learner(chosen, model, ALONE, pad_id=0)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.update(samples(), 2) == wanted
    assert distance(resumed, through) == 0.0


def test_the_learning_rate_rises_and_stays(model: Path) -> None:
    learner = Learner(config(optimizer={"warmup": 0.5}), model, ALONE, pad_id=0)
    rates = [learner.update(samples(2), step)["lr"] for step in range(4)]
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3, 1e-3])
