"""The processes of one training run: one, or as many as ``torchrun`` or the run itself started.

Each computes its share of every pass, and all end with the same weights. The first one alone scores and writes, and
samples, unless every process has an engine. Models are sharded by FSDP2 where there are several processes.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
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

from searchr1.errors import SearchR1Error

LONGEST_WAIT = timedelta(days=7)
"""Wait for work that the first process does alone, such as an evaluation; its death ends the wait at once."""

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)


class ProcessLostError(SearchR1Error):
    """Another process of the run has ended; what it printed says why."""


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a run, as one of them sees them."""

    device: torch.device
    """Device of this process."""
    rank: int = 0
    """Number of this process, from 0."""
    size: int = 1
    """Number of processes."""
    patient: Any = None
    """Torch's process group for ``broadcast``, on the CPU; None is the default one."""

    @classmethod
    def join(cls, device: str) -> "ProcessGroup":
        """Meet the other processes that ``torchrun`` started; without it this process is the only one."""
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size == 1:
            return cls(torch.device(device))
        rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
        place = torch.device(device, local) if device == "cuda" else torch.device(device)
        if place.type == "cuda":
            torch.cuda.set_device(place)
            dist.init_process_group("nccl", device_id=place)
        else:
            dist.init_process_group("gloo")
        # A collective on GPUs fails after ten minutes, and a rollout or an evaluation may last longer.
        patient = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
        return cls(place, rank, size, patient)

    @classmethod
    def meet(cls, device: str, rank: int, size: int, rendezvous: Path) -> "ProcessGroup":
        """Meet the other processes that one on this machine has spawned, at the file ``rendezvous``."""
        store = torch._C._distributed_c10d.FileStore(str(rendezvous), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        return cls(torch.device(device), rank, size)

    def leave(self) -> None:
        """Leave the group; its collectives can't be used after that."""
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """True in the process that scores and writes."""
        return self.rank == 0

    @property
    def spans_machines(self) -> bool:
        """True where ``torchrun`` started processes on several machines."""
        return int(os.environ.get("LOCAL_WORLD_SIZE", self.size)) < self.size

    def use_device(self) -> None:
        """Make the calling thread compute on this process's device; every thread starts out on the first GPU."""
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in one process after the other, so that only one holds what is large within it.

        Nothing in the block may need another process.
        """
        if self.size > 1:
            _mesh(self.device.type, self.size)
        for _ in range(self.rank):
            self._meet()
        yield
        for _ in range(self.rank, self.size):
            self._meet()

    def shard(
        self,
        module: M,
        layers: Sequence[nn.Module],
        *,
        dtype: torch.dtype = torch.float32,
        exact: Sequence[nn.Module] = (),
    ) -> M:
        """Spread ``module`` over all processes; each of its ``layers`` is whole only while it computes.

        Passes compute in ``dtype``, except those of the parts in ``exact``; what is kept, and the sum of gradients, has
        the weights' own type. A model on the CPU gets to this process's device layer by layer, never as a whole. One
        process alone keeps ``module`` as it is.
        """
        if self.size > 1:
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            mesh = _mesh(self.device.type, self.size)
            mixed = MixedPrecisionPolicy() if dtype == torch.float32 else MixedPrecisionPolicy(dtype, torch.float32)
            for part in exact:
                fully_shard(part, mesh=mesh)
            for layer in layers:
                fully_shard(layer, mesh=mesh, mp_policy=mixed)
            # FSDP2 would leave a root whole after its forward pass: for good, where no backward pass follows.
            fully_shard(module, mesh=mesh, mp_policy=mixed, reshard_after_forward=True)
        return module

    def share(self, batches: Sequence[list[int]]) -> list[tuple[list[int], bool]]:
        """Return this process's share of ``batches``, and whether each of them counts.

        Every process gets the same number; a batch that does not count is there to keep step with the others.
        """
        rounds = -(-len(batches) // self.size)
        padded = [(batch, True) for batch in batches]
        padded += [(batches[0][:1], False)] * (rounds * self.size - len(batches))
        return padded[self.rank :: self.size]

    def broadcast(self, value: T | None) -> T:
        """Return the first process's ``value``, in every process.

        Raises:
            ProcessLostError: the first process has ended.
        """
        if self.size > 1:
            box = [value]
            try:
                dist.broadcast_object_list(box, src=0, group=self.patient, device=torch.device("cpu"))
            except RuntimeError as error:
                raise ProcessLostError("another process of this run has ended; see its own message") from error
            value = box[0]
        return cast(T, value)

    def gather(self, value: T) -> list[T]:
        """Return every process's ``value``, in their order, in the first process; an empty list in the others.

        Raises:
            ProcessLostError: another process has ended.
        """
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        try:
            dist.gather_object(value, found if self.is_first else None, dst=0, group=self.patient)
        except RuntimeError as error:
            raise ProcessLostError("another process of this run has ended; see its own message") from error
        return found if self.is_first else []

    def wait_for_first(self) -> None:
        """Wait until the first process, which may have something to do alone, gets here too."""
        self.broadcast(None)

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over processes, entry by entry."""
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def largest(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the maximum over processes, entry by entry."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _meet(self) -> None:
        """Wait until every process gets here."""
        if self.size > 1:
            dist.barrier(group=self.patient)

    def _reduce(self, tensor: torch.Tensor, how: Any) -> torch.Tensor:
        if self.size == 1:
            return tensor
        moved = tensor.to(self.device)
        dist.all_reduce(moved, how)
        return moved.to(tensor.device)


@lru_cache(maxsize=1)
def _mesh(device_type: str, size: int) -> Any:
    """Return all processes as FSDP2 wants them. The first call has to be made by all of them at once."""
    from torch.distributed.device_mesh import init_device_mesh

    # Named, because the default is a GPU's wherever there is one.
    return init_device_mesh(device_type, (size,))


def model_state(module: nn.Module) -> dict[str, Any]:
    """Return all weights, whole and on the CPU, in the first process; every process must call this."""
    return get_model_state_dict(module, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def trained_state(module: nn.Module) -> dict[str, Any]:
    """Return ``model_state`` of the trained weights alone; frozen ones are as they were loaded."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    return get_model_state_dict(module, options=options)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state, whole and on the CPU, in the first process; every process must call this."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    is_fresh = not optimizer.state
    state = get_optimizer_state_dict(module, optimizer, options=options)
    if is_fresh:
        # To have a state to return, torch has taken an empty step, which must not count.
        for moments in optimizer.state.values():
            moments["step"].zero_()
        state = get_optimizer_state_dict(module, optimizer, options=options)
    return state


def load_states(
    module: nn.Module, optimizer: torch.optim.Optimizer, weights: Mapping[str, Any], moments: Mapping[str, Any]
) -> None:
    """Put back what ``trained_state`` and ``optimizer_state`` gave; every process must call this.

    Only the first process's ``weights`` and ``moments`` are read.
    """
    options = StateDictOptions(full_state_dict=True, strict=False, broadcast_from_rank0=dist.is_initialized())
    set_model_state_dict(module, dict(weights), options=options)
    set_optimizer_state_dict(module, optimizer, dict(moments), options=options)
