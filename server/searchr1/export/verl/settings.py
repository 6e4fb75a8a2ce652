"""A training run's fields under verl's names.

Source: ``verl/trainer/config/_generated_ppo_trainer.yaml`` and the code that reads it, at ``VERL_COMMIT``; the release
``VERL_VERSION`` has the same names, and ``scripts/check-verl`` runs an export in it.
"""

from pathlib import PurePath
from typing import Any

from searchr1.errors import ConfigurationError
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.trainer.rl.config import TrainConfig

VERL_COMMIT = "1dda039b9c6311889a9c9a26040677e1254814f9"
"""The commit of github.com/verl-project/verl at which the names were read: 22 August 2026 (0.10.0.dev)."""

VERL_VERSION = "0.9.1"
"""The release of verl that an export is checked with."""

LOOP = "searchr1"
"""The name by which verl knows our agent loop."""
LOOP_CLASS = "searchr1.export.verl.agent_loop.SearchLoop"
MAX_PROMPT_TOKENS = 2048
"""Upstream's ``data.max_start_length``; a longer question's prompt would be cut from the left."""
NO_DUAL_CLIP = 1e9
"""A bound that clips nothing: verl also clips the loss of very unlikely tokens (dual-clip PPO), at 3; we do not."""
MAX_TOKENS_PER_PASS = 16_384
"""Tokens of a pass in verl, at most: it has the logits of all of them in memory at once, observations' included, where
ours are of some sampled tokens at a time."""
CHECKPOINTS_KEPT = 3
"""Saves that verl keeps: one of a 7B model has 80 GB and more, and the last one may be of a policy that broke down."""
OFFLOADED = {"param_offload": True, "optimizer_offload": True}
"""Weights and optimizer states wait in the host's memory while vLLM samples, as in the reference's scripts."""

_OVER = {"token": "token-mean", "sequence": "seq-mean-token-mean", "constant": "seq-mean-token-sum-norm"}


def check(config: TrainConfig) -> None:
    """Raise ``ConfigurationError`` where verl could not run ``config`` even nearly."""
    if config.profile != SEARCH_R1.name:
        raise ConfigurationError(
            f"only the profile {SEARCH_R1.name} can be exported to verl, not {config.profile}: the exported questions "
            "and reward.py are written for its prompt and its tags"
        )
    if not config.retriever.startswith(("http://", "https://")):
        raise ConfigurationError(
            f"verl's workers reach a retriever by URL, and {config.retriever!r} is none: "
            "run 'searchr1 retriever serve' and give its address, such as --retriever http://127.0.0.1:8001/retrieve"
        )
    if config.open_algorithm().verl_adv_estimator is None:
        raise ConfigurationError(f"verl has no algorithm like {config.algorithm!r}")


def settings(config: TrainConfig, num_train_questions: int) -> dict[str, Any]:
    """Return verl's configuration, nested. Paths in the exported folder are left to its ``run.sh``."""
    return {
        "algorithm": _algorithm(config),
        "data": {
            "train_batch_size": config.rollout.questions_per_step,
            "max_prompt_length": MAX_PROMPT_TOKENS,
            "max_response_length": config.rollout.max_trajectory_tokens,
            "truncation": "error",
            "shuffle": True,
            "seed": config.seed,
        },
        "actor_rollout_ref": {
            "model": _model(config),
            "actor": _actor(config),
            "ref": {"log_prob_use_dynamic_bsz": True, "fsdp_config": {"param_offload": True}},
            "rollout": _rollout(config),
        },
        "critic": _critic(config),
        "reward": {"custom_reward_function": {"name": "compute_score"}, "reward_manager": {"name": "naive"}},
        "trainer": _trainer(config, num_train_questions),
    }


def loop_settings(config: TrainConfig) -> list[dict[str, Any]]:
    """Return the content of the file that ``agent_loop_config_path`` names: our loop, and its bounds."""
    rollout = config.rollout
    searches = {} if rollout.max_searches is None else {"max_searches": rollout.max_searches}
    return [
        {
            "name": LOOP,
            "_target_": LOOP_CLASS,
            "retriever": config.retriever,
            "top_k": rollout.top_k,
            "search_timeout_s": rollout.search_timeout_s,
            "max_turns": rollout.max_turns,
            **searches,
            "max_completion_tokens": rollout.max_completion_tokens,
            "max_observation_tokens": rollout.max_observation_tokens,
            "max_context_tokens": rollout.max_context_tokens,
        }
    ]


def departures(config: TrainConfig) -> list[str]:
    """Return what verl does otherwise than ``config`` says, or not at all, one sentence each."""
    loss, optimizer, rollout = config.loss, config.optimizer, config.rollout
    said = []
    if not loss.mask_observations:
        said.append("`loss.mask_observations: false` has no counterpart: verl leaves observations out of every loss.")
    if config.open_algorithm().needs_critic and loss.gae_over == "all":
        said.append("`loss.gae_over: all` has no counterpart: verl's GAE passes over observations.")
    if loss.over == "constant":
        said.append(
            "`loss.over: constant` is verl's `seq-mean-token-sum-norm`, which divides by the number of trajectories "
            "with a sampled token."
        )
    num_minibatches = rollout.questions_per_step // questions_per_minibatch(config)
    if num_minibatches != optimizer.num_minibatches:
        said.append(
            f"verl's minibatches are of whole questions and equal: {num_minibatches} a step, where "
            f"`optimizer.num_minibatches` is {optimizer.num_minibatches}."
        )
    if optimizer.warmup and optimizer.num_minibatches * optimizer.num_epochs > 1:
        said.append("verl's learning rate rises once a step, ours once a minibatch; both end at the same share.")
    if _tokens_per_pass(config) != optimizer.max_tokens_per_pass:
        said.append(
            f"`ppo_max_token_len_per_gpu` is {_tokens_per_pass(config)}, where `optimizer.max_tokens_per_pass` is "
            f"{optimizer.max_tokens_per_pass}: verl has all logits of a pass in memory at once, and takes no pass that "
            "is shorter than a trajectory."
        )
    if rollout.engine != "vllm" or rollout.engine_urls:
        said.append("`rollout.engine` and `rollout.engine_urls` do not carry over: verl starts vLLM itself.")
    if loss.importance_cap is not None:
        said.append(
            "`loss.importance_cap`: the few tokens that the loop replaces at a turn's end have no logprob of the "
            "engine; verl is given 0 and weighs them down, where we leave them unweighted."
        )
    if config.eval_data is None:
        said.append("There is no `eval_data`: verl wants a test file, so `test.parquet` repeats training questions.")
    said.append("`rollout.max_concurrent` does not carry over: `rollout.max_num_seqs` bounds what one engine batches.")
    return said


def _algorithm(config: TrainConfig) -> dict[str, Any]:
    cap = config.loss.importance_cap
    correction: dict[str, Any] = {"rollout_is": None if cap is None else "token"}
    if cap is not None:
        correction["rollout_is_threshold"] = cap
    algorithm = config.open_algorithm()
    return {
        "adv_estimator": algorithm.verl_adv_estimator,
        "gamma": config.loss.gamma,
        "lam": config.loss.lam,
        "norm_adv_by_std_in_grpo": config.loss.scale_by_std,
        "use_kl_in_reward": algorithm.kl_in == "reward" and config.loss.kl_coef > 0,
        "kl_penalty": "kl",
        "kl_ctrl": {"type": "fixed", "kl_coef": config.loss.kl_coef},
        "rollout_correction": correction,
    }


def _model(config: TrainConfig) -> dict[str, Any]:
    model: dict[str, Any] = {
        "path": config.model,
        "enable_gradient_checkpointing": config.optimizer.activation_checkpointing,
        "use_remove_padding": True,
    }
    if config.lora is not None:
        model |= {
            "lora_rank": config.lora.rank,
            "lora_alpha": config.lora.alpha,
            "target_modules": list(config.lora.targets),
        }
    return model


def _actor(config: TrainConfig) -> dict[str, Any]:
    loss, optimizer = config.loss, config.optimizer
    return {
        "optim": _optim(config, lr=optimizer.lr, warmup=optimizer.warmup),
        "grad_clip": optimizer.max_grad_norm,
        "ppo_mini_batch_size": questions_per_minibatch(config),
        "ppo_epochs": optimizer.num_epochs,
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": _tokens_per_pass(config),
        "clip_ratio": loss.clip_low,
        "clip_ratio_low": loss.clip_low,
        "clip_ratio_high": loss.clip_high,
        "clip_ratio_c": NO_DUAL_CLIP,
        "loss_agg_mode": _OVER[loss.over],
        "loss_scale_factor": loss.constant_tokens if loss.over == "constant" else None,
        "entropy_coeff": loss.entropy_coef,
        "use_kl_loss": config.open_algorithm().kl_in == "loss" and loss.kl_coef > 0,
        "kl_loss_coef": loss.kl_coef,
        "kl_loss_type": "low_var_kl",
        "data_loader_seed": config.seed,
        "entropy_from_logits_with_chunking": True,
        "fsdp_config": {"dtype": optimizer.dtype} | OFFLOADED,
    }


def _rollout(config: TrainConfig) -> dict[str, Any]:
    rollout = config.rollout
    return {
        "name": "vllm",
        "n": rollout.group_size,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "dtype": "bfloat16" if rollout.engine_dtype == "auto" else rollout.engine_dtype,
        "gpu_memory_utilization": rollout.gpu_memory_share,
        "enforce_eager": rollout.enforce_eager,
        "tensor_model_parallel_size": 1,
        "max_model_len": rollout.max_context_tokens + rollout.max_completion_tokens,
        "calculate_log_probs": True,
        "log_prob_use_dynamic_bsz": True,
        "val_kwargs": {"do_sample": False, "temperature": 0, "top_p": 1.0, "top_k": -1, "n": 1},
        "multi_turn": {"enable": True, "max_assistant_turns": rollout.max_turns + 1},
        "agent": {"default_agent_loop": LOOP},
    }


def _critic(config: TrainConfig) -> dict[str, Any]:
    optimizer = config.optimizer
    return {
        "optim": _optim(config, lr=optimizer.critic_lr, warmup=optimizer.critic_warmup),
        "grad_clip": optimizer.max_grad_norm,
        "model": {
            "path": config.model,
            "enable_gradient_checkpointing": optimizer.activation_checkpointing,
            "use_remove_padding": True,
        },
        "use_dynamic_bsz": True,
        "ppo_max_token_len_per_gpu": _tokens_per_pass(config),
        "cliprange_value": config.loss.value_clip,
        "fsdp": {"dtype": optimizer.dtype} | OFFLOADED,
    }


def _optim(config: TrainConfig, *, lr: float, warmup: float) -> dict[str, Any]:
    return {
        "lr": lr,
        "lr_warmup_steps_ratio": warmup,
        "lr_scheduler_type": "constant",
        "weight_decay": config.optimizer.weight_decay,
        "betas": list(config.optimizer.betas),
        "clip_grad": config.optimizer.max_grad_norm,
    }


def questions_per_minibatch(config: TrainConfig) -> int:
    """Return the questions of a minibatch, near to what ``config`` asks: verl splits a step's into equal parts."""
    questions = config.rollout.questions_per_step
    wanted = questions / config.optimizer.num_minibatches
    sizes = [size for size in range(1, questions + 1) if questions % size == 0]
    return min(sizes, key=lambda size: max(size / wanted, wanted / size))


def _tokens_per_pass(config: TrainConfig) -> int:
    """Return the tokens of one pass, at least those of one trajectory: verl refuses fewer."""
    wanted = min(config.optimizer.max_tokens_per_pass, MAX_TOKENS_PER_PASS)
    return max(wanted, MAX_PROMPT_TOKENS + config.rollout.max_trajectory_tokens)


def _trainer(config: TrainConfig, num_train_questions: int) -> dict[str, Any]:
    steps_per_epoch = max(1, num_train_questions // config.rollout.questions_per_step)
    evaluated = config.eval_data is not None
    return {
        "total_training_steps": config.num_steps,
        "total_epochs": -(-config.num_steps // steps_per_epoch),
        "critic_warmup": config.optimizer.critic_only_steps,
        "save_freq": config.save_every_steps,
        "max_actor_ckpt_to_keep": CHECKPOINTS_KEPT,
        "max_critic_ckpt_to_keep": CHECKPOINTS_KEPT,
        "test_freq": config.eval_every_steps if evaluated else -1,
        "val_before_train": evaluated,
        "nnodes": 1,
        "logger": ["console", "tensorboard"],
        "project_name": "searchr1",
        "experiment_name": PurePath(config.out_dir).name,
        "resume_mode": "auto",
    }
