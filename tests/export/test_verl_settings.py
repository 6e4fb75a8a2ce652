"""Our training runs under verl's names: every name is one that verl has, and its value says the same."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import ConfigurationError
from searchr1.export.verl.settings import (
    VERL_COMMIT,
    VERL_VERSION,
    check,
    departures,
    loop_settings,
    questions_per_minibatch,
    settings,
)
from searchr1.trainer.rl.algorithms.grpo import GRPO
from searchr1.trainer.rl.config import TrainConfig

pytestmark = pytest.mark.torch

RECORDED = (Path(__file__).parent / "verl_keys.txt").read_text("utf-8")
KEYS = {line for line in RECORDED.splitlines() if not line.startswith("#")}


def config(algorithm: str = "ppo", **sections: Any) -> TrainConfig:
    group = {"group_size": 5} if algorithm == "grpo" else {}
    fields = {
        "algorithm": algorithm,
        "model": "Qwen/Qwen2.5-3B",
        "data": "atlas",
        "retriever": "http://127.0.0.1:8000/retrieve",
        "out_dir": "runs/one",
    }
    sections["rollout"] = group | sections.get("rollout", {})
    return TrainConfig.model_validate(fields | sections)


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def verl(algorithm: str = "ppo", num_train_questions: int = 5120, **sections: Any) -> dict[str, Any]:
    return dict(flat(settings(config(algorithm, **sections), num_train_questions)))


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_verl_has_every_name_that_is_written(algorithm: str) -> None:
    written = verl(algorithm, lora={}, eval_data="atlas", loss={"importance_cap": 2.0, "over": "constant"})
    assert VERL_COMMIT in RECORDED
    assert VERL_VERSION in RECORDED
    assert set(written) <= KEYS


def test_ppo() -> None:
    written = verl("ppo", loss={"value_clip": 0.3, "gamma": 0.9, "lam": 0.8}, optimizer={"critic_only_steps": 7})
    expected = {
        "algorithm.adv_estimator": "gae",
        "algorithm.gamma": 0.9,
        "algorithm.lam": 0.8,
        "algorithm.use_kl_in_reward": True,
        "algorithm.kl_penalty": "kl",
        "algorithm.kl_ctrl.kl_coef": 0.001,
        "actor_rollout_ref.actor.use_kl_loss": False,
        "actor_rollout_ref.rollout.n": 1,
        "critic.cliprange_value": 0.3,
        "critic.optim.lr": 1e-5,
        "critic.optim.lr_warmup_steps_ratio": 0.015,
        "critic.model.path": "Qwen/Qwen2.5-3B",
        "trainer.critic_warmup": 7,
    }
    assert {name: written[name] for name in expected} == expected


def test_grpo() -> None:
    written = verl("grpo", loss={"scale_by_std": False, "clip_high": 0.28})
    expected = {
        "algorithm.adv_estimator": "grpo",
        "algorithm.norm_adv_by_std_in_grpo": False,
        "algorithm.use_kl_in_reward": False,
        "actor_rollout_ref.actor.use_kl_loss": True,
        "actor_rollout_ref.actor.kl_loss_coef": 0.001,
        "actor_rollout_ref.actor.kl_loss_type": "low_var_kl",
        "actor_rollout_ref.actor.clip_ratio_low": 0.2,
        "actor_rollout_ref.actor.clip_ratio_high": 0.28,
        "actor_rollout_ref.rollout.n": 5,
    }
    assert {name: written[name] for name in expected} == expected


def test_sizes_and_rates() -> None:
    written = verl("ppo", num_steps=25, optimizer={"max_tokens_per_pass": 100, "lr": 5e-7})
    expected = {
        "data.train_batch_size": 512,
        "data.max_response_length": 4096,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
        "actor_rollout_ref.actor.optim.lr": 5e-7,
        "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.285,
        "actor_rollout_ref.actor.entropy_coeff": 0.001,
        "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 2048 + 4096,
        "actor_rollout_ref.rollout.max_model_len": 4096 + 500,
        "actor_rollout_ref.rollout.name": "vllm",
        "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": 5,
        "trainer.total_training_steps": 25,
        "trainer.total_epochs": 3,
        "trainer.experiment_name": "one",
    }
    assert {name: written[name] for name in expected} == expected
    assert verl("ppo", num_train_questions=3, num_steps=25)["trainer.total_epochs"] == 25


@pytest.mark.parametrize(
    ("asked", "trajectory", "given"),
    [(32_768, 4096, 16_384), (12_000, 4096, 12_000), (100, 4096, 6144), (8192, 20_000, 22_048)],
)
def test_a_pass_has_the_tokens_of_a_trajectory_and_no_more_than_verls_logits_allow(
    asked: int, trajectory: int, given: int
) -> None:
    sections: dict[str, Any] = {
        "optimizer": {"max_tokens_per_pass": asked},
        "rollout": {"max_trajectory_tokens": trajectory},
    }
    written = verl("ppo", **sections)
    assert written["actor_rollout_ref.actor.ppo_max_token_len_per_gpu"] == given
    assert written["critic.ppo_max_token_len_per_gpu"] == given
    told = any("max_tokens_per_pass" in line for line in departures(config("ppo", **sections)))
    assert told == (given != asked)


def test_what_waits_in_the_hosts_memory_and_what_is_kept() -> None:
    written = verl("ppo")
    offloaded = {name for name, value in written.items() if name.endswith("_offload") and value}
    assert offloaded == {
        "actor_rollout_ref.actor.fsdp_config.param_offload",
        "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
        "actor_rollout_ref.ref.fsdp_config.param_offload",
        "critic.fsdp.param_offload",
        "critic.fsdp.optimizer_offload",
    }
    assert written["actor_rollout_ref.actor.fsdp_config.dtype"] == written["critic.fsdp.dtype"] == "bfloat16"
    assert written["trainer.max_actor_ckpt_to_keep"] == written["trainer.max_critic_ckpt_to_keep"] == 3


@pytest.mark.parametrize(
    ("over", "mode", "factor"),
    [
        ("token", "token-mean", None),
        ("sequence", "seq-mean-token-mean", None),
        ("constant", "seq-mean-token-sum-norm", 1000),
    ],
)
def test_how_tokens_are_averaged(over: str, mode: str, factor: int | None) -> None:
    written = verl("grpo", loss={"over": over})
    assert written["actor_rollout_ref.actor.loss_agg_mode"] == mode
    assert written["actor_rollout_ref.actor.loss_scale_factor"] == factor


def test_importance_weights() -> None:
    assert verl()["algorithm.rollout_correction.rollout_is"] is None
    written = verl(loss={"importance_cap": 3.0})
    assert written["algorithm.rollout_correction.rollout_is"] == "token"
    assert written["algorithm.rollout_correction.rollout_is_threshold"] == 3.0


def test_adapters_and_activations() -> None:
    assert "actor_rollout_ref.model.lora_rank" not in verl()
    written = verl(lora={"rank": 8, "alpha": 16, "targets": ["q_proj"]}, optimizer={"activation_checkpointing": True})
    assert written["actor_rollout_ref.model.lora_rank"] == 8
    assert written["actor_rollout_ref.model.target_modules"] == ["q_proj"]
    assert written["actor_rollout_ref.model.enable_gradient_checkpointing"] is True
    assert written["critic.model.enable_gradient_checkpointing"] is True


@pytest.mark.parametrize(("num_minibatches", "size"), [(1, 512), (2, 256), (10, 64), (512, 1), (5, 128)])
def test_minibatches_are_equal_and_of_whole_questions(num_minibatches: int, size: int) -> None:
    assert questions_per_minibatch(config(optimizer={"num_minibatches": num_minibatches})) == size
    assert 512 % size == 0


def test_the_loop_has_its_bounds() -> None:
    (loop,) = loop_settings(config(rollout={"top_k": 5, "max_turns": 2, "search_timeout_s": 3.0}))
    assert loop["_target_"] == "searchr1.export.verl.agent_loop.SearchLoop"
    assert (loop["top_k"], loop["max_turns"], loop["search_timeout_s"]) == (5, 2, 3.0)


def test_what_does_not_carry_over_is_said() -> None:
    odd = config(
        "ppo",
        loss={"mask_observations": False, "gae_over": "all", "over": "constant", "importance_cap": 2.0},
        optimizer={"num_minibatches": 3},
        rollout={"engine_urls": ["http://a"]},
    )
    said = "\n".join(departures(odd))
    for name in ("mask_observations", "gae_over", "over: constant", "importance_cap", "num_minibatches", "engine_urls"):
        assert name in said
    plain = "\n".join(departures(config("ppo", optimizer={"num_minibatches": 1}, eval_data="atlas")))
    assert "has no counterpart" not in plain
    assert "eval_data" not in plain


@pytest.mark.parametrize("profile", ["research", "search-o1"])
def test_another_profile_is_refused(profile: str) -> None:
    with pytest.raises(ConfigurationError, match=f"only the profile search-r1 can be exported to verl, not {profile}"):
        check(config(profile=profile))


def test_a_retriever_without_a_url_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="searchr1 retriever serve"):
        check(config(retriever="index:data/atlas/index"))
    check(config())


def test_an_algorithm_that_verl_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRPO, "verl_adv_estimator", None)
    with pytest.raises(ConfigurationError, match="no algorithm like 'grpo'"):
        check(config("grpo"))
