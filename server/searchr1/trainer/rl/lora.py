"""Low-rank adapters: each chosen linear layer learns a product of two small matrices, and nothing else moves.

Source: LoRA, arXiv 2106.09685. Layers keep the names of their weights, so that whole weights are one sum away, by name,
however the model is sharded; and the model without its adapters is the one that training started from.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from searchr1.errors import ConfigurationError
from searchr1.trainer.rl.sections import LoraSection

_DOWN, _UP = ".lora_down", ".lora_up"


class LoraLinear(nn.Module):
    """A linear layer plus ``scale * up @ down``; ``up`` starts at zero, so that at first nothing is added."""

    def __init__(self, linear: nn.Linear, rank: int, scale: float, random: torch.Generator) -> None:
        super().__init__()
        self.weight, self.bias, self.scale = linear.weight, linear.bias, scale
        down = torch.empty(rank, linear.in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=random)
        self.lora_down = nn.Parameter(down.to(linear.weight.device))
        self.lora_up = nn.Parameter(torch.zeros(linear.out_features, rank, device=linear.weight.device))
        self.is_adapted = True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x`` [..., in] to [..., out]."""
        result = functional.linear(x, self.weight, self.bias)
        if not self.is_adapted:
            return result
        return result + self.scale * functional.linear(functional.linear(x, self.lora_down), self.lora_up)

    def whole_weight(self) -> torch.Tensor:
        """Return the weight [out, in] of one layer without an adapter that computes the same."""
        return self.weight + self.scale * (self.lora_up @ self.lora_down) if self.is_adapted else self.weight


def add_adapters(model: nn.Module, section: LoraSection, *, seed: int) -> None:
    """Freeze ``model`` and give each of its linear layers that ``section`` names an adapter, which is trained.

    Raises:
        ConfigurationError: a name is no linear layer's.
    """
    model.requires_grad_(False)
    random = torch.Generator().manual_seed(seed)
    missing = set(section.targets)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in section.targets and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child, section.rank, section.scale, random))
                missing.discard(name)
    if missing:
        raise ConfigurationError(f"lora.targets: the model has no linear layer named {', '.join(sorted(missing))}")


@contextmanager
def without_adapters(model: nn.Module) -> Iterator[None]:
    """Turn the adapters of ``model`` off within the block, so that it is the model that training started from."""
    layers = [module for module in model.modules() if isinstance(module, LoraLinear)]
    for layer in layers:
        layer.is_adapted = False
    try:
        yield
    finally:
        for layer in layers:
            layer.is_adapted = True


def merged(state: Mapping[str, torch.Tensor], section: LoraSection) -> dict[str, torch.Tensor]:
    """Return the weights of a model without adapters that computes what the one with ``state`` does."""
    weights = {name: tensor for name, tensor in state.items() if not name.endswith((_DOWN, _UP))}
    for name, down in state.items():
        if name.endswith(_DOWN):
            layer = name.removesuffix(_DOWN)
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + section.scale * (state[layer + _UP] @ down)
    return weights
