"""The guard before each optimizer step: what is not finite moves no weight.

A gradient with one number that is not finite makes every weight so, by its norm, which all gradients are divided by.
So a step whose loss or gradient norm is not finite is skipped and counted, as in verl. A loss is judged on all
processes together, and the norm is of the whole gradient, so that all of them decide alike.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from searchr1.errors import TrainingError
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.trained import Trained


class NonFiniteGuard:
    """The optimizer steps of a run, taken where they are sound; ``limit`` bad ones in a row end the run."""

    def __init__(self, processes: ProcessGroup, *, limit: int) -> None:
        self._processes, self._limit = processes, limit
        self._with_bad_loss: set[str] = set()
        self.num_skipped = 0
        """Steps of all models that were skipped since this was set to 0."""
        self.in_a_row = 0
        """Updates one after the other, up to the last one, in each of which a model's step was skipped."""
        self._longest = 0

    def look(self, name: str, loss: torch.Tensor) -> None:
        """Take the loss of a pass through the model that is called ``name``."""
        if not math.isfinite(float(loss.detach())):
            self._with_bad_loss.add(name)

    def step(self, models: Mapping[str, Trained[Any]], update_index: int) -> dict[str, float]:
        """Take update ``update_index`` of each model, or skip it; return the norms of their gradients by name.

        Every process must call this with the same models.
        """
        if not models:
            return {}
        flags = torch.tensor([float(name in self._with_bad_loss) for name in models], dtype=torch.float64)
        is_bad = dict(zip(models, self._processes.largest(flags).tolist(), strict=True))
        self._with_bad_loss.clear()
        norms, num_skipped = {}, 0
        for name, trained in models.items():
            norms[name], was_taken = trained.optimizer_step(update_index, skip=bool(is_bad[name]))
            num_skipped += not was_taken
        self.num_skipped += num_skipped
        self.in_a_row = self.in_a_row + 1 if num_skipped else 0
        self._longest = max(self._longest, self.in_a_row)
        return norms

    def check(self) -> None:
        """Raise ``TrainingError`` where too many updates in a row were skipped."""
        if self._longest >= self._limit:
            raise TrainingError(
                f"{self._longest} optimizer steps in a row had a loss or a gradient that is not finite, and were "
                "skipped. The run ends here; its last save is as it was. A lower optimizer.lr or max_grad_norm may "
                "help, or optimizer.dtype: float32. max_skipped_updates says how many are borne"
            )
