"""The processes of one training run: one, or as many as ``torchrun`` started.

Each computes its share of every pass, and all end with the same weights. The first one alone samples, evaluates and
writes. Models are sharded by FSDP2 where there are several processes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among the others."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, device: str) -> "World":
        """Meet the other processes that ``torchrun`` started; alone without it."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(torch.device(device))
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        place = torch.device(device, local) if device == "cuda" else torch.device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
        dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
        return cls(place, rank, size)

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process samples, evaluates and writes."""
        return self.rank == 0

    def shard(self, module: M, layers: Sequence[nn.Module]) -> M:
        """Spread ``module`` over all processes, each of ``layers`` in turn being whole only while it computes."""
        if self.size > 1:
            from torch.distributed.fsdp import fully_shard

            for layer in layers:
                fully_shard(layer)
            fully_shard(module)
        return module

    def share(self, batches: Sequence[list[int]]) -> list[tuple[list[int], bool]]:
        """This process's batches, the same number for each, and whether each counts: some may be there to keep step."""
        rounds = -(-len(batches) // self.size)
        padded = [(batch, True) for batch in batches]
        padded += [(batches[0][:1], False)] * (rounds * self.size - len(batches))
        return padded[self.rank :: self.size]

    def broadcast(self, value: T | None) -> T:
        """The first process's ``value``, in every one."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0)
            value = box[0]
        return cast(T, value)

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over processes."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: torch.Tensor) -> torch.Tensor:
        """The maximum over processes, entry by entry."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _reduce(self, tensor: torch.Tensor, how: Any) -> torch.Tensor:
        if self.size == 1:
            return tensor
        moved = tensor.to(self.device)
        dist.all_reduce(moved, how)
        return moved.to(tensor.device)


_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def model_state(module: nn.Module) -> dict[str, Any]:
    """All weights, whole and on the CPU, in the first process; every process must call this."""
    return get_model_state_dict(module, options=_WHOLE)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state, whole and on the CPU, in the first process; every process must call this."""
    return get_optimizer_state_dict(module, optimizer, options=_WHOLE)


def load_states(
    module: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Any], moments: Mapping[str, Any]
) -> None:
    """Put back what ``model_state`` and ``optimizer_state`` gave; every process must have it whole."""
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(module, dict(weights), options=options)
    set_optimizer_state_dict(module, optimizer, dict(moments), options=options)
