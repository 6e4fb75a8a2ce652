"""Every file in configs/ describes a run, and those of the paper's models have the paper's numbers."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from searchr1.data.sets import SEVEN, UPSTREAM_REPO
from searchr1.export.verl.settings import check, settings
from searchr1.trainer.rl.config import TrainConfig, load_config
from searchr1.trainer.rl.rewards import reward_named

CONFIGS = Path(__file__).parents[3] / "configs"
PAPER = {
    "qwen2.5-3b-ppo": ("ppo", "Qwen/Qwen2.5-3B"),
    "qwen2.5-3b-grpo": ("grpo", "Qwen/Qwen2.5-3B"),
    "qwen2.5-7b-ppo": ("ppo", "Qwen/Qwen2.5-7B"),
    "qwen2.5-7b-grpo": ("grpo", "Qwen/Qwen2.5-7B"),
    "llama3.2-3b-ppo": ("ppo", "meta-llama/Llama-3.2-3B"),
    "qwen2.5-3b-instruct-ppo": ("ppo", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-3b-instruct-grpo": ("grpo", "Qwen/Qwen2.5-3B-Instruct"),
    "qwen2.5-7b-instruct-ppo": ("ppo", "Qwen/Qwen2.5-7B-Instruct"),
    "qwen2.5-7b-instruct-grpo": ("grpo", "Qwen/Qwen2.5-7B-Instruct"),
    "llama3.2-3b-instruct-ppo": ("ppo", "meta-llama/Llama-3.2-3B-Instruct"),
}


@pytest.fixture(params=PAPER)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(name: str) -> TrainConfig:
    return load_config(CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_file_is_a_run_with_a_folder_of_its_own(path: Path) -> None:
    config = load_config(path)
    assert config.out_dir == Path("runs") / path.stem
    assert config.algorithm in path.stem
    assert callable(reward_named(config.reward))


def test_the_papers_models_are_there(config: TrainConfig, name: str) -> None:
    assert (config.algorithm, config.model) == PAPER[name]
    assert (config.data, config.data_split) == (UPSTREAM_REPO, "train")
    assert (config.eval_data, config.eval_split) == (SEVEN, "test")
    assert config.retriever == "http://127.0.0.1:8000/retrieve"
    assert config.reward == "exact_match"


def test_the_papers_rollouts(config: TrainConfig) -> None:
    rollout = config.rollout
    assert rollout.questions_per_step == 512
    assert rollout.group_size == (5 if config.algorithm == "grpo" else 1)
    assert (rollout.top_k, rollout.max_turns) == (3, 4)
    assert (rollout.max_completion_tokens, rollout.max_observation_tokens) == (500, 500)
    assert rollout.max_context_tokens == 4096


def test_the_papers_losses(config: TrainConfig) -> None:
    loss = config.loss
    assert (loss.clip_low, loss.clip_high) == (0.2, 0.2)
    assert (loss.kl_coef, loss.entropy_coef) == (0.001, 0.001)
    assert (loss.gamma, loss.lam) == (1.0, 1.0)
    assert loss.mask_observations
    assert loss.scale_by_std
    assert loss.importance_cap is None


def test_the_papers_optimizer(config: TrainConfig) -> None:
    optimizer = config.optimizer
    assert config.num_steps == 500
    assert (optimizer.lr, optimizer.critic_lr) == (1e-6, 1e-5)
    # The scripts' ratios are of 1,005 steps, and what was trained for 500 of these has had that many.
    assert config.num_steps * optimizer.warmup == pytest.approx(int(0.285 * 1005))
    if config.algorithm == "ppo":
        assert config.num_steps * optimizer.critic_warmup == pytest.approx(int(0.015 * 1005))
    assert optimizer.max_grad_norm == 1.0
    num_rollouts = config.rollout.questions_per_step * config.rollout.group_size
    assert num_rollouts / optimizer.num_minibatches == 256
    assert optimizer.num_epochs == 1
    assert optimizer.activation_checkpointing
    assert config.lora is None


def test_they_can_be_exported_for_verl(config: TrainConfig) -> None:
    check(config)
    assert settings(config, 169_615)["data"]["train_batch_size"] == 512


def test_every_number_of_the_papers_files_names_its_source(name: str) -> None:
    """The source is in the comment at the end of the line, or on the line before it for a pair."""
    lines = (CONFIGS / f"{name}.yaml").read_text("utf-8").splitlines()
    fields = [line for line in lines if ": " in line and not line.startswith("#")]
    obvious = ("algorithm", "model", "data_split", "retriever", "out_dir", "eval_split", "device", "clip_high")
    unnamed = [line for line in fields if "#" not in line and line.split(":")[0].strip() not in obvious]
    assert unnamed == []
    assert yaml.safe_load("\n".join(lines))


def fields(name: str) -> dict[str, Any]:
    """A file's values by dotted name."""
    nested = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text("utf-8"))
    flat: dict[str, Any] = {}
    for outer, value in nested.items():
        flat |= {f"{outer}.{inner}": v for inner, v in value.items()} if isinstance(value, dict) else {outer: value}
    return flat


def differences(one: str, other: str) -> dict[str, Any]:
    """What ``other`` has otherwise than ``one``, its folder apart."""
    before, after = fields(one), fields(other)
    assert before.keys() == after.keys()
    return {name: value for name, value in after.items() if value != before[name] and name != "out_dir"}


@pytest.mark.parametrize("name", [name for name in PAPER if "instruct" in name])
def test_an_instruct_models_run_is_that_of_its_base(name: str) -> None:
    assert differences(name.replace("-instruct", ""), name) == {"model": PAPER[name][1]}


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_the_recipe_with_a_reward_of_form_differs_in_little(algorithm: str) -> None:
    """Source: v0.3's scripts beside v0.2's; GRPO has half the learning rate there."""
    changed = {"reward": "format_v0_3"} | ({"optimizer.lr": 5e-7} if algorithm == "grpo" else {})
    assert differences(f"qwen2.5-3b-{algorithm}", f"qwen2.5-3b-v0.3-{algorithm}") == changed


def test_a_pretrained_models_algorithms_are_compared_on_as_many_rollouts() -> None:
    grpo, ppo = (load_config(CONFIGS / f"smollm2-135m-{name}.yaml") for name in ("grpo", "ppo"))
    for config in (grpo, ppo):
        assert config.device == "cpu"
        assert config.rollout.questions_per_step * config.rollout.group_size == 40
    same = ("model", "data", "retriever", "num_steps", "loss")
    assert all(getattr(grpo, name) == getattr(ppo, name) for name in same)
