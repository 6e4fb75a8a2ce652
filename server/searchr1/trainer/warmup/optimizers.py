"""Muon for the weight matrices, AdamW for the embedding, norms and biases, and the one schedule of both."""

import math
from collections.abc import Sequence

import torch
from torch import nn


def build_optimizers(model: nn.Module, *, muon_lr: float, adamw_lr: float) -> tuple[torch.optim.Optimizer, ...]:
    """Return one optimizer per kind of parameter; both learning rates are peaks that ``set_lr`` scales.

    Without a ``muon_lr`` AdamW takes the weight matrices too: Muon orthogonalizes in bfloat16, which is slow on CPUs
    without AVX-512.

    Muon orthogonalizes its updates and so needs matrices that map hidden states to hidden states (Jordan et al., 2024);
    the embedding is a matrix of another kind.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: tuple[torch.optim.Optimizer, ...]
    if muon_lr:
        optimizers = (torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.0, momentum=0.95), _adamw(rest, adamw_lr))
    else:
        optimizers = (_adamw([*matrices, *rest], adamw_lr),)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def _adamw(parameters: list[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)


def lr_factor(progress: float, *, warmup: float, decay: float) -> float:
    """Return the share of the peak learning rate at ``progress``, the share of the run that is done.

    It rises linearly over the first ``warmup`` of the run and falls as a cosine to 0 over the last ``decay`` of it.
    """
    if progress < warmup:
        return progress / warmup
    if progress < 1 - decay:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - (1 - decay)) / decay)))


def set_lr(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    """Scale every peak learning rate by ``factor``."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
