"""A model in training: its optimizer, the schedule of its learning rate, and its state on disk."""

import math
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from searchr1.trainer.process_group import load_states, optimizer_state, trained_state
from searchr1.trainer.rl.sections import OptimizerSection

M = TypeVar("M", bound=nn.Module)


class Trained(Generic[M]):
    """A module with its AdamW and a learning rate that rises over the first ``warmup_updates`` and then stays."""

    def __init__(self, module: M, section: OptimizerSection, *, lr: float, warmup_updates: float) -> None:
        self.module = module
        self._peak_lr, self._warmup_updates, self._max_grad_norm = lr, warmup_updates, section.max_grad_norm
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(parameters, lr=lr, betas=section.betas, weight_decay=section.weight_decay)

    @property
    def lr(self) -> float:
        """Learning rate of the last optimizer step."""
        rate: float = self.optimizer.param_groups[0]["lr"]
        return rate

    def optimizer_step(self, update_index: int, *, skip: bool = False) -> tuple[float, bool]:
        """Take step ``update_index`` of the run by the gradients that have added up.

        Return their norm, and whether the step was taken: not with ``skip``, and not where the norm is not finite.
        Weights and moments are then as before.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self._peak_lr * min(1.0, (update_index + 1) / max(1.0, self._warmup_updates))
        clipped: Any = nn.utils.clip_grad_norm_(self.module.parameters(), self._max_grad_norm)
        norm = float(clipped.full_tensor() if hasattr(clipped, "full_tensor") else clipped)
        is_taken = math.isfinite(norm) and not skip
        if is_taken:
            self.optimizer.step()
        self.drop_gradients()
        return norm, is_taken

    def drop_gradients(self) -> None:
        """Forget the gradients that have added up."""
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return trained weights and optimizer state, whole, in the first process; every process must call this."""
        return trained_state(self.module), optimizer_state(self.module, self.optimizer)

    def load_state(self, weights: Mapping[str, Any], moments: Mapping[str, Any]) -> None:
        """Put back what ``state`` gave; only the first process's is read, and every process must call this."""
        load_states(self.module, self.optimizer, weights, moments)
