"""Adapters: what they compute, what stays as it was, and that a run learns with them; and checkpointed layers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from searchr1.errors import ConfigurationError
from searchr1.trainer.checkpoints import write_checkpoint
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.lora import LoraLinear, add_adapters, merged, without_adapters
from searchr1.trainer.rl.policy import Policy, TokenStats, load_policy
from searchr1.trainer.rl.sections import LoraSection
from tests.support.tiny_model import write_tiny_model
from tests.trainer.rl.test_learner import ALONE, config, samples

SECTION = LoraSection(rank=4, alpha=8.0)
IDS = torch.arange(20, 60).reshape(2, 20)
MASK = torch.ones_like(IDS, dtype=torch.bool)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def adapted(algorithm: str = "grpo", **optimizer: Any) -> TrainConfig:
    return config(algorithm, optimizer={"num_minibatches": 2} | optimizer).model_copy(update={"lora": SECTION})


def stats(module: nn.Module) -> TokenStats:
    with torch.no_grad():
        found: TokenStats = module(IDS, MASK)
    return found


def learned(model: Path, chosen: TrainConfig, steps: int = 1) -> tuple[Learner, list[dict[str, float]]]:
    learner = Learner(chosen, model, ALONE, pad_id=0)
    return learner, [learner.update(samples(), step) for step in range(steps)]


def test_new_adapters_change_nothing(model: Path) -> None:
    plain = Policy(load_policy(model, ALONE.device), dtype=torch.float32)
    wanted = stats(plain)
    add_adapters(plain, SECTION, seed=0)
    assert sum(isinstance(module, LoraLinear) for module in plain.modules()) == 2 * 7
    assert torch.equal(stats(plain).logprobs, wanted.logprobs)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_only_adapters_move_and_the_checkpoint_computes_the_same(model: Path, algorithm: str, tmp_path: Path) -> None:
    learner, _ = learned(model, adapted(algorithm), steps=2)
    base = load_policy(model, ALONE.device)
    kept = learner.policy.model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in base.state_dict().items())

    weights = learner.weights()
    assert weights.keys() == base.state_dict().keys()
    write_checkpoint(learner.policy.model, model, tmp_path / "checkpoint", dtype=torch.float32, weights=weights)
    served: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint")
    mine, theirs = stats(learner.policy), stats(Policy(served, dtype=torch.float32))
    torch.testing.assert_close(mine.logprobs, theirs.logprobs, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(mine.logprobs, stats(Policy(base, dtype=torch.float32)).logprobs, atol=1e-3)


def test_the_reference_is_the_model_without_adapters(model: Path) -> None:
    learner, metrics = learned(model, adapted(), steps=2)
    assert learner.reference is None
    assert metrics[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert metrics[1]["kl"] > 1e-6
    with without_adapters(learner.policy):
        off = stats(learner.policy)
    torch.testing.assert_close(
        off.logprobs, stats(Policy(load_policy(model, ALONE.device), dtype=torch.float32)).logprobs
    )
    assert not torch.allclose(off.logprobs, stats(learner.policy).logprobs, atol=1e-3)


def test_an_update_makes_the_rewarded_rollouts_likelier(model: Path) -> None:
    before = Learner(adapted(), model, ALONE, pad_id=0)
    after, _ = learned(model, adapted(), steps=3)

    def gain(number: int) -> float:
        sample = samples()[number]
        ids, mask = torch.tensor([sample.ids]), torch.tensor([sample.loss_mask])
        with torch.no_grad():
            return float((after.policy(ids, mask).logprobs - before.policy(ids, mask).logprobs).sum())

    assert gain(0) > 0
    assert gain(0) > gain(1)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_state_holds_what_is_trained_and_goes_on_to_the_last_bit(
    model: Path, algorithm: str, tmp_path: Path
) -> None:
    through, wanted = learned(model, adapted(algorithm), steps=3)
    stopped, _ = learned(model, adapted(algorithm), steps=2)
    state = stopped.state()
    assert all("lora_" in name for name in state["policy"])
    assert all("lora_" in name for name in state["optimizer"]["state"])
    assert all("lora_" in name or name.startswith("head.") for name in state.get("critic", {}))
    torch.save(state, tmp_path / "state.pt")
    resumed = Learner(adapted(algorithm), model, ALONE, pad_id=0)
    resumed.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.update(samples(), 2) == wanted[2]
    assert all(torch.equal(tensor, through.weights()[name]) for name, tensor in resumed.weights().items())


def test_a_sum_of_weights_by_hand() -> None:
    state = {
        "a.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "a.lora_down": torch.tensor([[1.0, -1.0]]),
        "a.lora_up": torch.tensor([[2.0], [0.0]]),
        "b.weight": torch.tensor([5.0]),
    }
    weights = merged(state, LoraSection(rank=1, alpha=0.5))
    assert weights.keys() == {"a.weight", "b.weight"}
    assert weights["a.weight"].tolist() == [[2.0, 1.0], [3.0, 4.0]]


def test_refuses_layers_that_are_not_there(model: Path) -> None:
    with pytest.raises(ConfigurationError, match="named qkv"):
        add_adapters(load_policy(model, ALONE.device), LoraSection(targets=("q_proj", "qkv")), seed=0)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("lora", [False, True])
def test_checkpointed_layers_are_computed_again_to_the_same_gradients(model: Path, algorithm: str, lora: bool) -> None:
    def counted(checkpointing: bool) -> tuple[list[int], dict[str, float]]:
        """Return the computations of the first layer of each model in an update, and the update's metrics."""
        chosen = adapted(algorithm) if lora else config(algorithm, optimizer={"num_minibatches": 2})
        optimizer = chosen.optimizer.model_copy(update={"activation_checkpointing": checkpointing})
        learner = Learner(chosen.model_copy(update={"optimizer": optimizer}), model, ALONE, pad_id=0)
        models: list[Any] = [learner.policy.model] + ([] if learner.critic is None else [learner.critic.base])
        calls = [0] * len(models)

        def count(at: int) -> None:
            calls[at] += 1

        for at, each in enumerate(models):
            # On a part's start: a hook on the layer runs outside of what is computed again, and that ends early.
            each.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_, at=at: count(at))
        metrics = learner.update(samples(), 0)
        return calls, metrics

    kept, again = counted(checkpointing=False), counted(checkpointing=True)
    # Before the update each model sees everything, the policy with adapters once more without; then two minibatches.
    looks = [2 if lora else 1, 1][: len(kept[0])]
    assert kept[0] == [number + 2 for number in looks]
    assert again[0] == [number + 4 for number in looks]
    assert again[1] == kept[1]
