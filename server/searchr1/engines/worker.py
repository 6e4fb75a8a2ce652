"""Loaded by vLLM in its worker process, as the class that ``worker_extension_cls`` names; nowhere else."""

import sys

# On a CPU with AMX, vLLM's eager attention kernel dies with SIGILL unless the process has asked the kernel for the tile
# registers first. vLLM has loaded torch in its worker by now; this package must not load it for a gateway.
_torch = sys.modules.get("torch")
if _torch is not None and hasattr(_torch.cpu, "_init_amx"):
    _torch.cpu._init_amx()


class WorkerExtension:
    """Adds nothing to vLLM's worker: loading this module is what counts."""
