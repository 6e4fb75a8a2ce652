"""The update of a step: from its samples to new weights of the policy, and of the critic where there is one.

An update first passes every sample through the models as they were when it was sampled (old logprobs, the start
policy's, values). The algorithm makes advantages of these over the whole step. Then come the optimizer steps. Where
there is one alone and no advantage needs a model, its own passes see all that the first ones would, which are left out.
Gradients add up over passes of bounded size and over processes; each term is divided by the whole minibatch's count, so
neither changes the result.

Shapes: R samples of a step, B of a pass, T tokens, N = T - 1 tokens that have a prediction.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from searchr1.trainer.meter import Meter
from searchr1.trainer.process_group import ProcessGroup, model_state
from searchr1.trainer.rl.algorithms.base import Advantages, OldPolicyStats, PolicyTokens
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.guard import NonFiniteGuard
from searchr1.trainer.rl.lora import merged, without_adapters
from searchr1.trainer.rl.losses import EngineGap, PolicyLoss, kl_k3, masked_mean, num_terms, truncated_importance
from searchr1.trainer.rl.models import load_models
from searchr1.trainer.rl.policy import Critic, TokenStats
from searchr1.trainer.rl.samples import Sample, SampleBatch, collate, micro_batches
from searchr1.trainer.rl.trained import Trained
from searchr1.trainer.widths import padded_width

Progress = Callable[[int], None]
"""Called with the number of samples that were just passed through the policy."""


class Learner:
    """The models in training, on this process's device."""

    def __init__(self, config: TrainConfig, source: Path, processes: ProcessGroup, *, pad_id: int) -> None:
        self.config, self.processes, self._pad_id = config, processes, pad_id
        self._algorithm = config.open_algorithm()
        self.guard = NonFiniteGuard(processes, limit=config.max_skipped_updates)
        section, num_updates = config.optimizer, self._num_updates(config.num_steps)
        self._models = load_models(config, source, processes, with_critic=self._algorithm.needs_critic)
        self.policy, self.reference = self._models.policy, self._models.reference
        self._trained_policy = Trained(self.policy, section, lr=section.lr, warmup_updates=section.warmup * num_updates)
        self._trained_critic: Trained[Critic] | None = None
        if self._models.critic is not None:
            self._trained_critic = Trained(
                self._models.critic,
                section,
                lr=section.critic_lr,
                warmup_updates=section.critic_warmup * num_updates,
            )

    @property
    def critic(self) -> Critic | None:
        """The critic, where the algorithm needs one."""
        return None if self._trained_critic is None else self._trained_critic.module

    @property
    def num_looks(self) -> int:
        """Times that an update passes each sample through the policy."""
        return self.config.optimizer.num_epochs + (not self._looks_once)

    @property
    def _looks_once(self) -> bool:
        """Whether the passes of an update's only optimizer step are its first ones too."""
        section = self.config.optimizer
        takes_one_step = section.num_epochs == section.num_minibatches == 1
        return takes_one_step and not self._algorithm.needs_critic and not self._algorithm.reads_logprobs()

    def update(self, samples: Sequence[Sample], step: int, progress: Progress = lambda _: None) -> dict[str, float]:
        """Learn from the samples of step ``step``; return metrics over their tokens."""
        self.processes.use_device()
        meter = Meter()
        self.guard.num_skipped = 0
        longest = max(len(sample.ids) for sample in samples)
        whole = collate(samples, self._pad_id, num_tokens=padded_width(longest))
        old = self._unseen(whole) if self._looks_once else self._forward(samples, whole, meter, progress)
        estimates = self._algorithm.advantages(old)
        for name, value in estimates.metrics.items():
            meter.mean(name, value, 1)
        section = self.config.optimizer
        for epoch in range(section.num_epochs):
            order = np.random.default_rng((self.config.seed, step, epoch)).permutation(len(samples))
            minibatches = np.array_split(order, min(section.num_minibatches, len(samples)))
            for number, rows in enumerate(minibatches):
                update_index = self._num_updates(step) + epoch * section.num_minibatches + number
                self._optimize(samples, whole, old, estimates, sorted(rows.tolist()), update_index, meter, progress)
        rates = {f"{prefix}lr": trained.lr for prefix, trained in self._trained().items()}
        return meter.result(self.processes) | rates | {"skipped_updates": float(self.guard.num_skipped)}

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the policy's weights by the names that its checkpoint has; whole in the first process, on the CPU."""
        self.processes.use_device()
        state = {name.removeprefix("model."): tensor for name, tensor in model_state(self.policy).items()}
        return state if self.config.lora is None else merged(state, self.config.lora)

    def state(self) -> dict[str, Any]:
        """Return everything that the next steps depend on, in the first process."""
        self.processes.use_device()
        state: dict[str, Any] = {"skipped_in_a_row": self.guard.in_a_row}
        for prefix, trained in self._trained().items():
            state[_WEIGHTS[prefix]], state[f"{prefix}optimizer"] = trained.state()
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Put back what ``state`` gave; only the first process's is read."""
        self.guard.in_a_row = self.processes.broadcast(state.get("skipped_in_a_row", 0))
        for prefix, trained in self._trained().items():
            trained.load_state(state.get(_WEIGHTS[prefix], {}), state.get(f"{prefix}optimizer", {}))

    def _trained(self) -> dict[str, Trained[Any]]:
        """Return the models in training by the prefix of their metrics."""
        both: dict[str, Trained[Any] | None] = {"": self._trained_policy, "critic_": self._trained_critic}
        return {prefix: trained for prefix, trained in both.items() if trained is not None}

    @torch.no_grad()
    def _reference_logprobs(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the start policy's logprobs [B, N] of ``ids`` [B, T] where ``mask`` [B, T]."""
        if self.reference is not None:
            stats: TokenStats = self.reference(ids, mask)
            return stats.logprobs
        with without_adapters(self.policy):
            stats = self.policy(ids, mask)
        return stats.logprobs

    def _unseen(self, whole: SampleBatch) -> OldPolicyStats:
        """Return what is known of the samples before any model has seen them."""
        mask = self._mask(whole)
        nothing = torch.zeros(mask.shape)
        return OldPolicyStats(
            whole.rewards, whole.groups, mask, mask, nothing, None, nothing, weights=torch.ones(mask.shape)
        )

    def _mask(self, whole: SampleBatch) -> torch.Tensor:
        """Return the tokens in the policy's loss, [R, N]."""
        return (whole.loss_mask if self.config.loss.mask_observations else whole.response_mask)[:, 1:]

    @torch.no_grad()
    def _forward(
        self, samples: Sequence[Sample], whole: SampleBatch, meter: Meter, progress: Progress
    ) -> OldPolicyStats:
        """Pass all samples through the models as they are."""
        loss, mask = self.config.loss, self._mask(whole)
        value_mask = mask if loss.gae_over == "sampled" else whole.response_mask[:, 1:]
        old, ref, values = (torch.zeros(mask.shape) for _ in range(3))
        has_reference = loss.kl_coef > 0
        with self._models.computing():
            for rows, counts in self._passes(samples, list(range(len(samples)))):
                ids, ids_mask, width = _micro_batch(whole.ids, mask, rows, counts, self.processes.device)
                stats = self.policy(ids, ids_mask)
                old[rows, :width] += stats.logprobs.cpu()
                meter.mean("entropy", masked_mean(stats.entropy, ids_mask[:, 1:]), float(ids_mask.sum()))
                if has_reference:
                    ref[rows, :width] += self._reference_logprobs(ids, ids_mask).cpu()
                if self.critic is not None:
                    ids, ids_mask, width = _micro_batch(whole.ids, value_mask, rows, counts, self.processes.device)
                    values[rows, :width] += self.critic(ids, ids_mask).cpu()
                progress(len(rows))
        old, ref, values = (self.processes.add(tensor) for tensor in (old, ref, values))
        if has_reference:
            meter.mean("kl", masked_mean(kl_k3(old, ref), mask), 1)
        has_both = whole.has_engine_logprob & mask
        weights, gap = truncated_importance(old, whole.engine_logprobs, has_both, loss.importance_cap)
        _measure_gap(meter, gap, 1)
        return OldPolicyStats(
            whole.rewards, whole.groups, mask, value_mask, old, ref if has_reference else None, values, weights
        )

    def _at_first_look(
        self,
        stats: TokenStats,
        ref: torch.Tensor | None,
        mask: torch.Tensor,
        whole: SampleBatch,
        rows: list[int],
        meter: Meter,
    ) -> "_Seen":
        """Return what ``_forward`` would have found in the samples ``rows``, and measure the same."""
        num, old = float(mask.sum()), stats.logprobs.detach()
        meter.mean("entropy", masked_mean(stats.entropy.detach(), mask), num)
        if ref is not None:
            meter.mean("kl", masked_mean(kl_k3(old, ref), mask), num)
        engine, known = (
            tensor[rows, : mask.shape[1]].to(mask.device)
            for tensor in (whole.engine_logprobs, whole.has_engine_logprob)
        )
        has_both = known & mask
        weights, gap = truncated_importance(old, engine, has_both, self.config.loss.importance_cap)
        _measure_gap(meter, gap, float(has_both.sum()))
        return _Seen(old, ref, weights)

    def _optimize(
        self,
        samples: Sequence[Sample],
        whole: SampleBatch,
        old: OldPolicyStats,
        estimates: Advantages,
        rows: list[int],
        update_index: int,
        meter: Meter,
        progress: Progress,
    ) -> None:
        """Take one optimizer step of each model, number ``update_index`` of the run, on the samples ``rows``."""
        loss = self.config.loss
        terms = (
            float(len(rows) * loss.constant_tokens)
            if loss.over == "constant"
            else float(num_terms(old.mask[rows], loss.over))
        )
        value_terms = float(num_terms(old.value_mask[rows], "token"))
        with self._models.computing():
            for part, counts in self._passes(samples, self._with_gradient(estimates, rows)):
                self._policy_pass(whole, old, estimates, part, counts, terms, meter)
                if self.critic is not None:
                    self._critic_pass(self.critic, whole, old, estimates, part, counts, value_terms, meter)
                progress(len(part))
        # Each pass adds its part of the loss; here, once per optimizer step, is what the sum is divided by.
        for name in ("policy_loss", "value_loss") if self.critic is not None else ("policy_loss",):
            meter.add(name, 0.0, over=1 / self.processes.size)
        num_critic_only = self._num_updates(self.config.optimizer.critic_only_steps)
        moved = self._trained()
        if update_index < num_critic_only:
            moved.pop("").drop_gradients()
        for prefix, norm in self.guard.step(moved, update_index).items():
            meter.mean(f"{prefix}grad_norm", norm, 1)

    def _with_gradient(self, estimates: Advantages, rows: list[int]) -> list[int]:
        """Return those of ``rows`` that have a gradient, and as many others as there are processes without one.

        Every process needs a pass, or there is no gradient to take the mean of.
        """
        has_gradient = self._algorithm.has_gradient(estimates.advantages[rows]).tolist()
        chosen = [row for row, has_one in zip(rows, has_gradient, strict=True) if has_one]
        others = [row for row, has_one in zip(rows, has_gradient, strict=True) if not has_one]
        return sorted(chosen + others[: max(0, self.processes.size - len(chosen))])

    def _policy_pass(
        self,
        whole: SampleBatch,
        old: OldPolicyStats,
        estimates: Advantages,
        rows: list[int],
        counts: bool,
        terms: float,
        meter: Meter,
    ) -> None:
        ids, ids_mask, width = _micro_batch(whole.ids, old.mask, rows, counts, self.processes.device)
        mask = ids_mask[:, 1:]

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            return tensor[rows, :width].to(self.processes.device)

        ref = None if old.ref_logprobs is None else cut(old.ref_logprobs)
        if self._looks_once and self.config.loss.kl_coef > 0:
            ref = self._reference_logprobs(ids, ids_mask)
        stats = self.policy(ids, ids_mask)
        if self._looks_once:
            seen = self._at_first_look(stats, ref, mask, whole, rows, meter)
        else:
            seen = _Seen(cut(old.logprobs), ref, cut(old.weights))
        tokens = PolicyTokens(
            stats.logprobs,
            stats.entropy,
            seen.logprobs,
            seen.ref_logprobs,
            cut(estimates.advantages),
            seen.weights,
            mask,
            terms,
        )
        total, surrogate = self._algorithm.policy_loss(tokens)
        self.guard.look("", total)
        # Sharding takes the mean of the processes' gradients, and what is wanted is their sum.
        (total * self.processes.size).backward()  # type: ignore[no-untyped-call]
        _measure(meter, surrogate, float(mask.sum()))

    def _critic_pass(
        self,
        critic: Critic,
        whole: SampleBatch,
        old: OldPolicyStats,
        estimates: Advantages,
        rows: list[int],
        counts: bool,
        terms: float,
        meter: Meter,
    ) -> None:
        ids, ids_mask, width = _micro_batch(whole.ids, old.value_mask, rows, counts, self.processes.device)
        old_values = old.values[rows, :width].to(self.processes.device)
        returns = estimates.returns[rows, :width].to(self.processes.device)
        values = critic(ids, ids_mask)
        total, clipped = self._algorithm.critic_loss(values, old_values, returns, ids_mask[:, 1:], terms)
        self.guard.look("critic_", total)
        (total * self.processes.size).backward()  # type: ignore[no-untyped-call]
        meter.add("value_loss", total.detach())
        meter.mean("value_clip_fraction", clipped, float(ids_mask.sum()))

    def _passes(self, samples: Sequence[Sample], rows: list[int]) -> Iterator[tuple[list[int], bool]]:
        """Yield this process's passes over ``rows``: their row numbers, and whether they count."""
        chosen = [samples[row] for row in rows]
        limit = self.config.optimizer.max_tokens_per_pass
        batches = micro_batches(chosen, limit, at_least=self.processes.size)
        for batch, counts in self.processes.share(batches):
            yield [rows[position] for position in batch], counts

    def _num_updates(self, num_steps: int) -> int:
        """Return the optimizer steps in ``num_steps``."""
        return num_steps * self.config.optimizer.num_epochs * self.config.optimizer.num_minibatches


@dataclass(frozen=True, slots=True)
class _Seen:
    """The samples of a pass as the models saw them before the optimizer step; [B, N] float32, detached."""

    logprobs: torch.Tensor
    ref_logprobs: torch.Tensor | None
    weights: torch.Tensor


_WEIGHTS = {"": "policy", "critic_": "critic"}
"""Names of the models' weights in ``Learner.state``, by the prefix of their metrics."""


def _micro_batch(
    ids: torch.Tensor, mask: torch.Tensor, rows: list[int], counts: bool, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return some ``rows`` of ``ids`` [R, T] and ``mask`` [R, N], cut to the longest of them, on ``device``.

    The shapes are ids [B, t] and their mask [B, t], false on the first id of all; t - 1 comes third. A pass that does
    not count has an empty mask.
    """
    last = int(mask[rows].any(0).nonzero().max()) if mask[rows].any() else 0
    width = min(mask.shape[1], padded_width(last + 2) - 1)
    ids_mask = torch.zeros(len(rows), width + 1, dtype=torch.bool)
    if counts:
        ids_mask[:, 1:] = mask[rows, :width]
    return ids[rows, : width + 1].to(device), ids_mask.to(device), width


def _measure(meter: Meter, surrogate: PolicyLoss, num: float) -> None:
    meter.add("policy_loss", surrogate.loss.detach())
    meter.mean("clip_fraction", surrogate.clip_fraction, num)
    meter.mean("approx_kl", surrogate.approx_kl, num)
    meter.largest("ratio_max", surrogate.ratio_max)


def _measure_gap(meter: Meter, gap: EngineGap, num: float) -> None:
    meter.mean("gap_mean_abs", gap.mean_abs, num)
    meter.largest("gap_max_abs", gap.max_abs)
    meter.mean("gap_kl", gap.kl, num)
    meter.mean("gap_capped_fraction", gap.capped_fraction, num)
