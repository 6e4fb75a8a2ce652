"""Working copies: bfloat16 weights that passes compute with, beside the float32 ones that the optimizer moves.

One process alone has them; where models are sharded, FSDP2's mixed precision does the same. Unlike autocast, which
casts weights in every pass and keeps whatever it does not multiply in float32, all activations are half as large, and a
CPU or GPU reads and writes half as much.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place in a module that a weight stands in; tied weights stand in several."""

    module: nn.Module
    name: str
    weight: nn.Parameter
    """float32; gradients add up in its ``grad``."""
    copy: nn.Parameter
    """The same in bfloat16."""


class WorkingCopy:
    """bfloat16 copies of all weights of ``module``, except those of its parts in ``exact``.

    Outside of ``in_use`` the module holds its own weights alone, so that nothing else needs to know of the copies. They
    follow the weights by themselves.
    """

    def __init__(self, module: nn.Module, *, exact: Collection[nn.Module] = ()) -> None:
        kept = {id(parameter) for part in exact for parameter in part.parameters()}
        copies: dict[int, nn.Parameter] = {}
        self._slots: list[_Slot] = []
        for owner in module.modules():
            for name, weight in owner.named_parameters(recurse=False):
                if id(weight) not in kept:
                    copy = copies.setdefault(id(weight), _copy_of(weight))
                    self._slots.append(_Slot(owner, name, weight, copy))
        self._versions = [-1] * len(self._slots)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Have the module compute with the copies within the block; backward passes belong into it too.

        Gradients add up in the float32 weights' ``grad``, pass by pass.
        """
        self._follow()
        for slot in self._slots:
            slot.module.register_parameter(slot.name, slot.copy)
        try:
            yield
        finally:
            for slot in self._slots:
                slot.module.register_parameter(slot.name, slot.weight)

    @torch.no_grad()
    def _follow(self) -> None:
        """Copy those weights again that have moved since."""
        for number, slot in enumerate(self._slots):
            if slot.weight._version != self._versions[number]:
                slot.copy.copy_(slot.weight)
                self._versions[number] = slot.weight._version


def _copy_of(weight: nn.Parameter) -> nn.Parameter:
    copy = nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=weight.requires_grad)

    def hand_over(copy: Any) -> None:
        if weight.grad is None:
            weight.grad = copy.grad.float()
        else:
            weight.grad.add_(copy.grad)
        copy.grad = None

    if copy.requires_grad:
        copy.register_post_accumulate_grad_hook(hand_over)  # type: ignore[no-untyped-call]
    return copy
