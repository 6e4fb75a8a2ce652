"""Training configurations: typed, with errors that name the field."""

from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.algorithms.grpo import GRPO
from searchr1.trainer.rl.config import load_config, parse_overrides

LEAST = """
algorithm: grpo
model: some/model
data: atlas
retriever: index:somewhere
out_dir: runs/x
rollout: {group_size: 5}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text, "utf-8")
    return path


def test_the_defaults_are_the_papers(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, LEAST))
    assert (config.optimizer.lr, config.optimizer.critic_lr, config.loss.clip_low) == (1e-6, 1e-5, 0.2)
    assert (config.loss.kl_coef, config.loss.gamma, config.loss.lam) == (0.001, 1.0, 1.0)
    limits = config.rollout.limits()
    assert (limits.max_turns, limits.max_completion_tokens, limits.max_trajectory_tokens) == (4, 500, 4096)


def test_no_search_at_all_is_a_bound_and_no_bound_is_no_field(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, LEAST))
    assert config.rollout.limits().max_searches is None
    assert "max_searches" not in config.model_dump()["rollout"]  # Runs of earlier versions go on.
    assert load_config(written(tmp_path, LEAST), {"rollout.max_searches": 0}).rollout.limits().max_searches == 0


def test_fields_are_overridden_by_dotted_name(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, LEAST), {"optimizer.lr": 0.1, "rollout.group_size": 3, "seed": 4})
    assert (config.optimizer.lr, config.rollout.group_size, config.seed) == (0.1, 3, 4)


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (LEAST + "lr: 1\n", None, "lr: Extra inputs"),
        (LEAST, {"rollout.group_size": 0}, r"rollout\.group_size"),
        (LEAST, {"loss.clip_low": -1}, r"loss\.clip_low"),
        (LEAST, {"loss.kl_coef": float("nan")}, r"loss\.kl_coef"),
        (LEAST, {"model.x": 1}, r"there is no field model\.x"),
        (LEAST.replace("algorithm: grpo", ""), None, "algorithm: Field required"),
        (LEAST, {"algorithm": "dpo"}, r"the file: there is no algorithm 'dpo'; there are .*grpo, ppo"),
        (
            LEAST,
            {"rollout.engine": "vlm"},
            r"rollout\.engine: there is no engine 'vlm'; there are .*vllm",
        ),
        ("- a list", None, "must hold fields"),
        ("a: [", None, "can't be read as YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, overrides: dict[str, Any] | None, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        load_config(written(tmp_path, text), overrides)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml can't be read"):
        load_config(tmp_path / "none.yaml")


def test_overrides_are_yaml_values_by_name() -> None:
    words = ["optimizer.lr=1e-5", "loss.mask_observations=false", "lora=null", "rollout.engine_urls=[a, b]"]
    assert parse_overrides(words) == {
        "optimizer.lr": "1e-5",
        "loss.mask_observations": False,
        "lora": None,
        "rollout.engine_urls": ["a", "b"],
    }


def test_an_algorithm_may_refuse_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(self: GRPO) -> None:
        raise ConfigurationError(f"not with a group_size of {self.group_size}")

    monkeypatch.setattr(GRPO, "check", check)
    with pytest.raises(ConfigurationError, match="the file: not with a group_size of 5"):
        load_config(written(tmp_path, LEAST))


@pytest.mark.parametrize("word", ["optimizer.lr", "a=[", "=: :"])
def test_an_override_that_is_none_is_named(word: str) -> None:
    with pytest.raises(ConfigurationError, match="--set"):
        parse_overrides([word])
