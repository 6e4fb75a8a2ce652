"""What learns: the policy, the critic of PPO, and one step's update of both from a step's samples.

An update first looks at every sample with the weights that sampled it (old logprobs, the start policy's, values), then
makes advantages over the whole step, and then takes optimizer steps. Gradients add up over passes of bounded size and
over processes; each term is divided by the whole minibatch's count, so neither changes the result.

Shapes: R samples of a step, B of a pass, N = T - 1 tokens that have a prediction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from searchr1.trainer.meter import Meter
from searchr1.trainer.process_group import World, load_states, model_state, optimizer_state, trained_state
from searchr1.trainer.rl.algorithms.grpo import grpo_advantages, grpo_loss
from searchr1.trainer.rl.algorithms.ppo import critic_loss, ppo_advantages, ppo_loss
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.lora import add_adapters, merged, without_adapters
from searchr1.trainer.rl.losses import EngineGap, PolicyLoss, kl_k3, masked_mean, num_terms, truncated_importance
from searchr1.trainer.rl.policy import Critic, Policy, TokenStats, checkpoint_layers, decoder_layers, load_policy
from searchr1.trainer.rl.samples import Batch, Sample, collate, micro_batches
from searchr1.trainer.warmup.batches import WIDTH_STEP

Progress = Callable[[int], None]
"""Told how many samples were passed through the policy."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a step's samples before its first optimizer step; all [R, N] float32, on the CPU."""

    mask: torch.Tensor
    """Tokens in the loss; bool."""
    value_mask: torch.Tensor
    """PPO: tokens over which GAE runs; bool."""
    old_logprobs: torch.Tensor
    """By the weights that sampled the step."""
    ref_logprobs: torch.Tensor | None
    """By the start policy; None without a KL."""
    values: torch.Tensor
    """By the critic; zeros with GRPO."""
    weights: torch.Tensor
    """Truncated importance weights of the engine's tokens."""
    advantages: torch.Tensor
    returns: torch.Tensor


class Learner:
    """The models in training, on this process's device."""

    def __init__(self, config: TrainConfig, source: Path, world: World, *, pad_id: int) -> None:
        self.config, self.world, self._pad_id = config, world, pad_id
        dtype = torch.bfloat16 if config.optimizer.dtype == "bfloat16" else torch.float32
        self.policy = self._policy(source, dtype)
        self.reference: Policy | None = None
        if config.loss.kl_coef > 0 and config.lora is None:
            self.reference = self._policy(source, dtype).requires_grad_(False)
        self.optimizer = self._adamw(self.policy, config.optimizer.lr)
        self.critic: Critic | None = None
        if config.algorithm == "ppo":
            torch.manual_seed(config.seed)
            critic = Critic(source, world.device, dtype=dtype)
            self._prepare(critic.base)
            self.critic = world.shard(critic, list(decoder_layers(critic.base)))
            self.critic_optimizer = self._adamw(self.critic, config.optimizer.critic_lr)

    def update(self, samples: Sequence[Sample], step: int, progress: Progress = lambda _: None) -> dict[str, float]:
        """Learn from the samples of step ``step``; return metrics over their tokens."""
        self.world.settle()
        meter = Meter()
        longest = max(len(sample.ids) for sample in samples)
        whole = collate(samples, self._pad_id, num_tokens=-(-(longest - 1) // WIDTH_STEP) * WIDTH_STEP + 1)
        known = self._look(samples, whole, meter, progress)
        section = self.config.optimizer
        for epoch in range(section.num_epochs):
            order = np.random.default_rng((self.config.seed, step, epoch)).permutation(len(samples))
            parts = np.array_split(order, min(section.num_minibatches, len(samples)))
            for number, rows in enumerate(parts):
                at = (step * section.num_epochs + epoch) * section.num_minibatches + number
                self._optimize(samples, whole, known, sorted(rows.tolist()), at, meter, progress)
        result = meter.result(self.world)
        return result | {"lr": self.optimizer.param_groups[0]["lr"]} | self._critic_lr()

    def weights(self) -> dict[str, torch.Tensor]:
        """The policy's, by the names that its checkpoint has; whole in the first process, on the CPU."""
        self.world.settle()
        state = {name.removeprefix("model."): tensor for name, tensor in model_state(self.policy).items()}
        return state if self.config.lora is None else merged(state, self.config.lora)

    def state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, in the first process."""
        self.world.settle()
        state = {"policy": trained_state(self.policy), "optimizer": optimizer_state(self.policy, self.optimizer)}
        if self.critic is not None:
            state["critic"] = trained_state(self.critic)
            state["critic_optimizer"] = optimizer_state(self.critic, self.critic_optimizer)
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave; only the first process's is read."""
        load_states(self.policy, self.optimizer, state.get("policy", {}), state.get("optimizer", {}))
        if self.critic is not None:
            load_states(self.critic, self.critic_optimizer, state.get("critic", {}), state.get("critic_optimizer", {}))

    def _policy(self, source: Path, dtype: torch.dtype) -> Policy:
        model = load_policy(source, self.world.device)
        self._prepare(model)
        return self.world.shard(Policy(model, dtype=dtype), list(decoder_layers(model)))

    def _prepare(self, model: PreTrainedModel) -> None:
        if self.config.lora is not None:
            add_adapters(model, self.config.lora, seed=self.config.seed)
        if self.config.optimizer.activation_checkpointing:
            checkpoint_layers(model)

    def _refer(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The start policy's logprobs, shape [B, T-1]."""
        if self.reference is not None:
            stats: TokenStats = self.reference(ids, mask)
            return stats.logprobs
        with without_adapters(self.policy):
            stats = self.policy(ids, mask)
        return stats.logprobs

    def _adamw(self, module: nn.Module, lr: float) -> torch.optim.Optimizer:
        section = self.config.optimizer
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(parameters, lr=lr, betas=section.betas, weight_decay=section.weight_decay)

    @torch.no_grad()
    def _look(self, samples: Sequence[Sample], whole: Batch, meter: Meter, progress: Progress) -> Known:
        """Pass all samples through the models as they are, and make advantages of what comes out."""
        loss = self.config.loss
        mask = (whole.loss_mask if loss.mask_observations else whole.response_mask)[:, 1:]
        value_mask = mask if loss.gae_over == "sampled" else whole.response_mask[:, 1:]
        old, ref, values = (torch.zeros(mask.shape) for _ in range(3))
        has_reference = loss.kl_coef > 0
        for rows, counts in self._passes(samples, list(range(len(samples)))):
            ids, at, width = _part(whole.ids, mask, rows, counts, self.world.device)
            stats = self.policy(ids, at)
            old[rows, :width] += stats.logprobs.cpu()
            meter.mean("entropy", masked_mean(stats.entropy, at[:, 1:]), float(at.sum()))
            if has_reference:
                ref[rows, :width] += self._refer(ids, at).cpu()
            if self.critic is not None:
                ids, at, width = _part(whole.ids, value_mask, rows, counts, self.world.device)
                values[rows, :width] += self.critic(ids, at).cpu()
            progress(len(rows))
        old, ref, values = (self.world.add(tensor) for tensor in (old, ref, values))
        ref_logprobs = ref if has_reference else None
        if ref_logprobs is not None:
            meter.mean("kl", masked_mean(kl_k3(old, ref), mask), 1)
        known_to_engine = whole.has_engine_logprob & mask
        weights, gap = truncated_importance(old, whole.engine_logprobs, known_to_engine, loss.importance_cap)
        _measure_gap(meter, gap)
        if self.critic is None:
            size = self.config.rollout.group_size
            advantages = grpo_advantages(whole.rewards, whole.groups, loss, group_size=size)
            advantages = advantages[:, None].expand(mask.shape)
            returns = torch.zeros(mask.shape)
        else:
            advantages, returns = ppo_advantages(whole.rewards, old, ref_logprobs, values, value_mask, loss)
        return Known(mask, value_mask, old, ref_logprobs, values, weights, advantages, returns)

    def _optimize(
        self,
        samples: Sequence[Sample],
        whole: Batch,
        known: Known,
        rows: list[int],
        at: int,
        meter: Meter,
        progress: Progress,
    ) -> None:
        """One optimizer step of each model, number ``at`` of the run, on the samples numbered ``rows``."""
        loss = self.config.loss
        terms = (
            float(len(rows) * loss.constant_tokens)
            if loss.over == "constant"
            else float(num_terms(known.mask[rows], loss.over))
        )
        value_terms = float(num_terms(known.value_mask[rows], "token"))
        for part, counts in self._passes(samples, self._that_teach(known, rows)):
            self._policy_pass(whole, known, part, counts, terms, meter)
            if self.critic is not None:
                self._critic_pass(whole, known, part, counts, value_terms, meter)
            progress(len(part))
        # Each pass adds its part of the loss; here, once per optimizer step, is what the sum is divided by.
        for name in ("policy_loss", "value_loss") if self.critic is not None else ("policy_loss",):
            meter.add(name, 0.0, over=1 / self.world.size)
        section, total = self.config.optimizer, self._num_updates()
        if at >= section.critic_only_steps * section.num_epochs * section.num_minibatches:
            norm = self._move(self.policy, self.optimizer, section.lr, section.warmup * total, at)
            meter.mean("grad_norm", norm, 1)
        else:
            self.optimizer.zero_grad(set_to_none=True)
        if self.critic is not None:
            norm = self._move(self.critic, self.critic_optimizer, section.critic_lr, section.critic_warmup * total, at)
            meter.mean("critic_grad_norm", norm, 1)

    def _that_teach(self, known: Known, rows: list[int]) -> list[int]:
        """Those of ``rows`` that have a gradient: a GRPO group of equal rewards gets one from KL or entropy alone."""
        loss = self.config.loss
        if self.config.algorithm != "grpo" or loss.kl_coef > 0 or loss.entropy_coef != 0:
            return rows
        teaching = [row for row in rows if known.advantages[row].any()]
        # Every process needs a pass, or there is no gradient to take the mean of.
        return teaching if len(teaching) >= self.world.size else rows

    def _policy_pass(
        self, whole: Batch, known: Known, rows: list[int], counts: bool, terms: float, meter: Meter
    ) -> None:
        ids, at, width = _part(whole.ids, known.mask, rows, counts, self.world.device)
        mask = at[:, 1:]

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[rows, :width].to(self.world.device)

        stats = self.policy(ids, at)
        loss = self.config.loss
        old, advantages, weights = cut(known.old_logprobs), cut(known.advantages), cut(known.weights)
        if self.config.algorithm == "grpo":
            ref = None if known.ref_logprobs is None else cut(known.ref_logprobs)
            total, surrogate = grpo_loss(
                stats.logprobs, stats.entropy, old, ref, advantages, weights, mask, loss, terms
            )
        else:
            total, surrogate = ppo_loss(stats.logprobs, stats.entropy, old, advantages, weights, mask, loss, terms)
        # Sharding takes the mean of the processes' gradients, and what is wanted is their sum.
        (total * self.world.size).backward()  # type: ignore[no-untyped-call]
        _measure(meter, surrogate, float(mask.sum()))

    def _critic_pass(
        self, whole: Batch, known: Known, rows: list[int], counts: bool, terms: float, meter: Meter
    ) -> None:
        assert self.critic is not None
        ids, at, width = _part(whole.ids, known.value_mask, rows, counts, self.world.device)
        old = known.values[rows, :width].to(self.world.device)
        returns = known.returns[rows, :width].to(self.world.device)
        values = self.critic(ids, at)
        total, clipped = critic_loss(values, old, returns, at[:, 1:], self.config.loss, terms)
        (total * self.world.size).backward()  # type: ignore[no-untyped-call]
        num = float(at.sum())
        meter.add("value_loss", total.detach())
        meter.mean("value_clip_fraction", clipped, num)

    def _passes(self, samples: Sequence[Sample], rows: list[int]) -> Iterator[tuple[list[int], bool]]:
        """This process's passes over ``rows``: their row numbers, and whether they count."""
        chosen = [samples[row] for row in rows]
        limit = self.config.optimizer.max_tokens_per_pass
        batches = micro_batches(chosen, limit, at_least=self.world.size)
        for batch, counts in self.world.share(batches):
            yield [rows[position] for position in batch], counts

    def _move(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, peak_lr: float, warmup: float, at: int
    ) -> float:
        """Take one optimizer step by the gradients that have added up; return their norm."""
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * min(1.0, (at + 1) / max(1.0, warmup))
        norm: Any = nn.utils.clip_grad_norm_(module.parameters(), self.config.optimizer.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def _num_updates(self) -> int:
        section = self.config.optimizer
        return self.config.num_steps * section.num_epochs * section.num_minibatches

    def _critic_lr(self) -> dict[str, float]:
        return {} if self.critic is None else {"critic_lr": self.critic_optimizer.param_groups[0]["lr"]}


def _part(
    ids: torch.Tensor, mask: torch.Tensor, rows: list[int], counts: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Rows of ``ids`` [R, T] and ``mask`` [R, T-1], cut to the longest of these: ids [B, t], mask [B, t], t - 1.

    A pass that does not count has an empty mask.
    """
    last = int(mask[rows].any(0).nonzero().max()) if mask[rows].any() else 0
    width = min(mask.shape[1], -(-(last + 1) // WIDTH_STEP) * WIDTH_STEP)
    at = torch.zeros(len(rows), width + 1, dtype=torch.bool)
    if counts:
        at[:, 1:] = mask[rows, :width]
    return ids[rows, : width + 1].to(device), at.to(device), width


def _measure(meter: Meter, surrogate: PolicyLoss, num: float) -> None:
    meter.add("policy_loss", surrogate.loss.detach())
    meter.mean("clip_fraction", surrogate.clip_fraction, num)
    meter.mean("approx_kl", surrogate.approx_kl, num)
    meter.largest("ratio_max", surrogate.ratio_max)


def _measure_gap(meter: Meter, gap: EngineGap) -> None:
    meter.mean("gap_mean_abs", gap.mean_abs, 1)
    meter.largest("gap_max_abs", gap.max_abs)
    meter.mean("gap_kl", gap.kl, 1)
    meter.mean("gap_capped_fraction", gap.capped_fraction, 1)
