"""Every file in configs/ describes a run, and those of the paper's models have the paper's numbers."""

from pathlib import Path

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
    "llama3.2-3b-ppo": ("ppo", "meta-llama/Llama-3.2-3B"),
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
