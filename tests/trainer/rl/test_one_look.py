"""An update whose only optimizer step sees what a pass before it would have seen, and one in bfloat16."""

from pathlib import Path
from typing import Any

import pytest
import torch

from searchr1.trainer.rl.algorithms.base import ALGORITHMS
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.policy import Policy
from searchr1.trainer.rl.sections import LoraSection
from tests.support.tiny_model import write_tiny_model
from tests.trainer.rl.test_learner import ALONE, config, distance, learned, samples

LOSSES: dict[str, dict[str, Any]] = {
    "kl": {},
    "kl and entropy by sequence": {"entropy_coef": 0.01, "over": "sequence"},
    "importance": {"importance_cap": 2.0},
    "without the mask": {"mask_observations": False},
    "without a kl": {"kl_coef": 0.0, "entropy_coef": 0.0},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("lora", [False, True])
def test_it_learns_and_measures_what_two_looks_do(
    model: Path, loss: str, lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = config(loss=LOSSES[loss], optimizer={"max_tokens_per_pass": 150})
    if lora:
        chosen = chosen.model_copy(update={"lora": LoraSection(rank=4)})
    once, metrics = learned(model, chosen, samples(), steps=2)
    assert once.num_looks == 1
    monkeypatch.setattr(Learner, "_looks_once", False)
    monkeypatch.setattr(Learner, "_with_gradient", lambda self, estimates, rows: rows)
    twice, wanted = learned(model, chosen, samples(), steps=2)
    assert twice.num_looks == 2
    assert distance(once, twice) < 0.01 * distance(twice, Learner(chosen, model, ALONE, pad_id=0))
    assert metrics.keys() == wanted.keys()
    # Without a gradient, the last two rollouts are not looked at, and so not measured.
    measured = {"entropy", "gap_mean_abs", "gap_max_abs", "gap_kl"} if loss == "without a kl" else set()
    for name in metrics.keys() - measured:
        assert metrics[name] == pytest.approx(wanted[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("algorithm", ALGORITHMS.all())
@pytest.mark.parametrize("section", [{"num_minibatches": 2}, {"num_epochs": 2}, {}])
def test_only_an_algorithm_that_reads_no_logprobs_is_spared_a_look(
    model: Path, algorithm: str, section: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[bool] = []
    forward = Policy.forward

    def counted(self: Policy, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        if self is not learner.reference:
            looks.extend([torch.is_grad_enabled()] * len(ids))
        return forward(self, ids, mask)

    learner = Learner(config(algorithm, optimizer=section), model, ALONE, pad_id=0)
    monkeypatch.setattr(Policy, "forward", counted)
    learner.update(samples(), 0)
    spared = algorithm == "grpo" and not section
    assert looks.count(False) == (0 if spared else 6)
    assert looks.count(True) == 6 * section.get("num_epochs", 1)
    assert len(looks) == 6 * learner.num_looks


@pytest.mark.parametrize("algorithm", ["rloo", "reinforce_plus_plus"])
def test_a_kl_in_the_reward_is_what_has_to_be_seen_before(model: Path, algorithm: str) -> None:
    assert Learner(config(algorithm), model, ALONE, pad_id=0).num_looks == 2
    assert Learner(config(algorithm, loss={"kl_coef": 0.0}), model, ALONE, pad_id=0).num_looks == 1


def test_equal_rewards_take_one_pass_of_one_rollout(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    forward = Policy.forward

    def counted(self: Policy, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        passed.append(len(ids))
        return forward(self, ids, mask)

    monkeypatch.setattr(Policy, "forward", counted)
    chosen = config(loss={"kl_coef": 0.0, "entropy_coef": 0.0})
    wrong = [sample for sample in samples() if not sample.reward]
    _, metrics = learned(model, chosen, wrong)
    assert passed == [1]
    assert metrics["policy_loss"] == 0.0
    assert metrics["grad_norm"] == 0.0


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_update_in_bfloat16_is_near_to_one_in_float32(model: Path, algorithm: str, checkpointing: bool) -> None:
    optimizer = {"activation_checkpointing": checkpointing, "max_tokens_per_pass": 150}
    full, wanted = learned(model, config(algorithm, optimizer=optimizer), samples(), steps=1)
    half, metrics = learned(model, config(algorithm, optimizer=optimizer | {"dtype": "bfloat16"}), samples(), steps=1)
    assert all(parameter.dtype == torch.float32 for parameter in half.policy.parameters())
    assert metrics.keys() == wanted.keys()
    # The start policy and the policy are the same at the start, in the same type.
    assert metrics["kl"] == pytest.approx(0.0, abs=1e-9)
    for name in ("entropy", "grad_norm", "gap_mean_abs"):
        assert metrics[name] == pytest.approx(wanted[name], rel=0.1), name
    # Adam's first step is the gradient's sign, which rounding turns where the gradient is small.
    assert distance(half, full) < 0.7 * distance(full, Learner(config(algorithm), model, ALONE, pad_id=0))


def test_a_restored_learner_goes_on_in_bfloat16_to_the_last_bit(model: Path, tmp_path: Path) -> None:
    chosen = config("ppo", optimizer={"num_minibatches": 2, "dtype": "bfloat16"})
    through, wanted = learned(model, chosen, samples(), steps=3)
    stopped, _ = learned(model, chosen, samples(), steps=2)
    torch.save(stopped.state(), tmp_path / "state.pt")
    resumed = Learner(chosen, model, ALONE, pad_id=0)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.update(samples(), 2) == wanted
    assert distance(resumed, through) == 0.0
