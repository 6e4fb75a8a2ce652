"""Means over the tokens of many passes, and over processes."""

import torch

from searchr1.trainer.process_group import ProcessGroup


class Meter:
    """Metrics that add up pass by pass."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._largest: dict[str, float] = {}

    def mean(self, name: str, value: torch.Tensor | float, weight: float) -> None:
        """Let a pass's mean count ``weight`` times, as often as it has tokens."""
        self.add(name, float(value) * weight, over=weight)

    def add(self, name: str, value: torch.Tensor | float, *, over: float = 0.0) -> None:
        """Add to a sum, and ``over`` to what it is divided by in the end."""
        self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._weights[name] = self._weights.get(name, 0.0) + over

    def largest(self, name: str, value: torch.Tensor | float) -> None:
        """Keep the largest of all passes."""
        self._largest[name] = max(self._largest.get(name, float("-inf")), float(value))

    def result(self, processes: ProcessGroup) -> dict[str, float]:
        """Return all metrics by name, over all processes, which must have the same ones."""
        names, tops = list(self._sums), list(self._largest)
        both = [[self._sums[name], self._weights[name]] for name in names]
        totals = processes.add(torch.tensor(both, dtype=torch.float64).reshape(-1, 2)).tolist()
        largest = processes.largest(torch.tensor([self._largest[name] for name in tops], dtype=torch.float64)).tolist()
        means = {name: total / weight if weight else 0.0 for name, (total, weight) in zip(names, totals, strict=True)}
        return means | dict(zip(tops, largest, strict=True))
