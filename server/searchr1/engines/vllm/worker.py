"""The class that ``worker_extension_cls`` names: vLLM alone loads this module, in its worker process."""

import multiprocessing
import os
import sys
import threading
import time
from typing import Any

_CHECK_EVERY_S = 1.0

# On a CPU with AMX, vLLM's eager attention kernel dies with SIGILL unless the process has asked the kernel for the tile
# registers first. vLLM has loaded torch in its worker by now; this package must not load it for a gateway.
_torch = sys.modules.get("torch")
if _torch is not None and hasattr(_torch.cpu, "_init_amx"):
    _torch.cpu._init_amx()


def end_with_parent() -> None:
    """End this process when the one that started it is gone: a killed process can't stop what it started.

    vLLM alone would stay, and keep its memory, its GPU's too.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_CHECK_EVERY_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


if multiprocessing.parent_process() is not None:
    end_with_parent()


class WorkerExtension:
    """Methods added to vLLM's worker: ``VllmInProcessEngine`` calls them by name."""

    model_runner: Any
    """The model runner of vLLM's worker, which this class is mixed into."""

    def take_weights(self, folder: str) -> None:
        """Replace the model's weights by those of a checkpoint folder of the same architecture."""
        self.model_runner.reload_weights(weights_path=folder)
        _tie_again(self.model_runner.get_model())


def _tie_again(model: Any) -> None:
    """Point a tied output layer at the new embedding.

    vLLM 0.32 on CPU keeps a packed copy of the old one: without this, outputs are silently wrong.
    """
    config = model.config
    if not getattr(config, "tie_word_embeddings", False) or not hasattr(model, "lm_head"):
        return
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.platforms import current_platform

    model.lm_head.weight = model.model.embed_tokens.weight
    if current_platform.is_cpu():
        dispatch_cpu_unquantized_gemm(model.lm_head, remove_weight=False)
