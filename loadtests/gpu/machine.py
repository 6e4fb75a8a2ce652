"""The machine that is measured: its name, its GPU, and the peak of what was allocated on it."""

import platform
import socket
from dataclasses import dataclass

import torch

from searchr1.errors import SearchR1Error

GIB = 2**30


class NoGpuError(SearchR1Error):
    """There is no GPU to measure."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a result names as the place where it was measured."""

    host: str
    device: str
    """Name of the GPU, or of the processor in a rehearsal."""
    memory_gib: float | None
    """The GPU's memory; None in a rehearsal."""
    torch: str
    cuda: str | None

    @property
    def is_gpu(self) -> bool:
        """True where a GPU was measured."""
        return self.memory_gib is not None

    @property
    def torch_device(self) -> str:
        """Name of what is measured, as torch has it."""
        return "cuda" if self.is_gpu else "cpu"


def machine_here(*, rehearse: bool) -> Machine:
    """Return this machine with its first GPU, or with its processor for a rehearsal.

    Raises:
        NoGpuError: there is none, and this is no rehearsal.
    """
    if rehearse:
        processor = platform.processor() or platform.machine()
        return Machine(socket.gethostname(), f"{processor}, no GPU", None, torch.__version__, None)
    if not torch.cuda.is_available():
        raise NoGpuError(
            f"torch {torch.__version__} finds no GPU on {socket.gethostname()}: where there is one, install its CUDA "
            "build. --rehearse runs all of this in small on the CPU"
        )
    properties = torch.cuda.get_device_properties(0)
    memory_gib = properties.total_memory / GIB
    return Machine(socket.gethostname(), properties.name, memory_gib, torch.__version__, torch.version.cuda)


class Peak:
    """The most memory that torch had allocated on the GPU within a block, in GiB; None without a GPU."""

    def __init__(self, machine: Machine) -> None:
        self._has_gpu = machine.is_gpu
        self.gib: float | None = None

    def __enter__(self) -> "Peak":
        if self._has_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *_: object) -> None:
        if self._has_gpu:
            self.gib = torch.cuda.max_memory_allocated() / GIB
