"""vLLM as a part of this program: ``AsyncLLM`` here, its engine core in a process that this one starts and stops.

On one host this costs less CPU per token than vLLM's HTTP server, and it is the trainer's engine. vLLM is imported
when an engine starts, so that nothing else needs it installed. Processes are spawned: a program that starts an engine
needs an ``if __name__ == "__main__"`` guard.
"""

import asyncio
import gc
import logging
import multiprocessing
import secrets
import time
from collections.abc import AsyncGenerator, Hashable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from searchr1.engines.base import Chunk, EngineHealth, GivesMemory, SamplingParams
from searchr1.engines.silence import SilenceWatch
from searchr1.engines.vllm.args import VllmInProcessConfig, import_vllm, start_llm
from searchr1.engines.vllm.progress import progress_of
from searchr1.engines.vllm.pulse import Pulse
from searchr1.errors import (
    ConfigurationError,
    EngineClosedError,
    EngineError,
    EngineOverloadedError,
    EngineUnavailableError,
)
from searchr1.loop.types import FinishReason, TokenIds
from searchr1.trace_context import TRACE_HEADERS

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
_PULSE_S: Final = 3.0
_HUNG_AFTER_S: Final = 120.0
"""An engine that has been stalled for this long is taken for dead."""


class VllmInProcessEngine(GivesMemory):
    """A vLLM that this process owns: ``start`` it, or use it as an async context manager; ``aclose`` stops it.

    To ``sleep``, it has to be started with vLLM's argument ``enable_sleep_mode``, which needs a GPU.
    """

    def __init__(self, config: VllmInProcessConfig) -> None:
        self.config = config
        self._llm: AsyncLLM | None = None
        self._watch: asyncio.Task[None] | None = None
        self._died = asyncio.Event()
        self._asleep = False
        self._gone = EngineHealth(ok=False, reason="starting", detail="it has not been started")
        self._up_at = 0.0
        """When a restart is expected to be done, by the monotonic clock."""
        self._start_took_s = 0.0
        self._pulse = Pulse(self._ask_core)
        self._silence = SilenceWatch(config.silence_s, signs=self._progress, recovered=self._recovered)
        self._aborts: set[asyncio.Task[None]] = set()

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
        await self._silence.aclose()
        await self._discard(EngineHealth(ok=False, reason="stopped", detail="it has been stopped"))

    async def health(self) -> EngineHealth:
        """Return whether the engine is up, answers and moves. Never raises; it costs nothing."""
        if self._llm is None:
            return self._gone
        if self._llm.errored:
            return EngineHealth(ok=False, reason="restarting", detail="it has died")
        waits_s = 0.0 if self._silence.held else self._pulse.unanswered_s
        if self._silence.suspect or self._silence.stalled or waits_s > self._silence.suspect_s:
            return EngineHealth(ok=False, reason="stalled", detail="the engine core does not answer, or has stopped")
        return EngineHealth(ok=True)

    async def metrics_text(self) -> str:
        """Return vLLM's own metrics in Prometheus' text format; they are this process's, not one engine's."""
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
        llm = self._running()
        if self._silence.stalled:
            raise EngineUnavailableError(f"the engine for {self.config.model} does not move")
        if self._asleep:
            raise EngineUnavailableError(f"the engine for {self.config.model} sleeps until it gets weights")
        from vllm.exceptions import GracefulHTTPError, VLLMClientError
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        request_id = f"{session}-{secrets.token_hex(4)}"
        failure: EngineUnavailableError | None = None

        def fail(error: EngineUnavailableError) -> None:
            nonlocal failure
            failure = error
            self._abort(llm, request_id)

        outputs = llm.generate(
            tokens_input(prompt_token_ids=list(prompt_ids), cache_salt=params.cache_salt),
            _sampling(params),
            request_id,
            priority=priority if self.config.priority_scheduling else 0,
            session_id=session,
            trace_headers=TRACE_HEADERS.get() or None,
        )
        try:
            with self._silence.watching(fail):
                async with aclosing(outputs):
                    async for output in outputs:
                        if failure is not None:
                            raise failure
                        self._silence.moved()
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

    def _running(self) -> "AsyncLLM":
        if self._llm is None and self._gone.reason == "stopped":
            raise EngineClosedError(f"the engine for {self.config.model} is down: {self._gone.detail}")
        if self._llm is None or self._llm.errored:
            detail = self._gone.detail if self._llm is None else "it has died"
            raise EngineUnavailableError(
                f"the engine for {self.config.model} is down: {detail}",
                retry_after_s=max(1.0, self._up_at - time.monotonic()) if self._up_at else None,
            )
        return self._llm

    def _abort(self, llm: "AsyncLLM", request_id: str) -> None:
        """End a completion from outside: its last output comes from the front end, whatever the core does."""

        async def abort() -> None:
            with suppress(Exception):  # A core that has died meanwhile has ended it as well.
                await llm.abort(request_id)

        task = asyncio.create_task(abort())
        self._aborts.add(task)
        task.add_done_callback(self._aborts.discard)

    async def _ask_core(self) -> None:
        if self._llm is not None:
            await self._llm.get_weight_version()

    async def _progress(self) -> Hashable | None:
        return progress_of(await self.metrics_text())

    async def _recovered(self) -> bool:
        return self._llm is None or await self._pulse.answers(within_s=_PULSE_S)

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace the running model's weights by those in ``folder``, a checkpoint of the same architecture.

        Completions that are running stand still meanwhile and go on with the new weights; none is lost. Prefixes are
        computed anew. ``version`` names the weights from then on. An engine that sleeps is awake after that.

        Raises:
            EngineUnavailableError: the engine is down, or died at it.
            EngineError: the folder does not fit, in which case the weights may be half replaced: use another folder.
        """
        llm = self._running()
        if not await asyncio.to_thread(_has_weights, folder):
            raise EngineError(f"{folder} holds no weights: there is no *.safetensors in it")
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            with self._silence.holding():
                if self._asleep:
                    await llm.wake_up(["weights"])
                else:
                    # With the old prefixes in the cache, later tokens would mix two policies' states.
                    await llm.pause_generation(mode="keep", clear_cache=True)
                was_taken = False
                try:
                    await llm.collective_rpc("take_weights", args=(str(folder),))
                    await llm.update_weight_version(version)
                    # A restart after a crash must not bring the old ones back.
                    self.config = replace(self.config, model=str(folder))
                    was_taken = True
                finally:
                    if not self._asleep:
                        await llm.resume_generation()
                    elif was_taken:
                        # Last, so that the folder's tensors do not meet a whole KV cache. It resumes as well.
                        await llm.wake_up(["kv_cache"])
                        self._asleep = False
                    else:  # It forgot its old weights when it fell asleep.
                        await llm.sleep(level=2)
        except EngineDeadError as error:
            self._died.set()
            raise EngineUnavailableError("the engine died while it took new weights") from error
        except Exception as error:  # vLLM hands on whatever its worker raised, as a bare Exception.
            raise EngineError(f"the engine can't take the weights in {folder}: {error}") from error

    async def sleep(self) -> None:
        """Give up the memory of weights and KV cache until ``take_weights``; what runs is aborted.

        Raises:
            EngineUnavailableError: the engine is down, or died at it.
            EngineError: it was started without ``enable_sleep_mode``.
        """
        llm = self._running()
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            with self._silence.holding():
                # Level 2 keeps nothing: the next weights come from a folder, as a whole.
                await llm.sleep(level=2)
                self._asleep = True
        except EngineDeadError as error:
            self._died.set()
            raise EngineUnavailableError("the engine died while it fell asleep") from error
        except Exception as error:  # As in ``take_weights``.
            raise EngineError(f"the engine can't sleep: {error}") from error

    async def _build(self) -> "AsyncLLM":
        model = self.config.model
        started = time.perf_counter()
        logger.info("starting vLLM for %s: a minute on CPU, more when it compiles for the first time", model)
        await asyncio.to_thread(import_vllm, self.config)
        before = {process.pid for process in multiprocessing.active_children()}
        building = asyncio.create_task(asyncio.to_thread(start_llm, self.config))
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
        self._start_took_s = time.perf_counter() - started
        logger.info("vLLM is up after %.0f s", self._start_took_s)
        return llm

    async def _keep_alive(self) -> None:
        """Restart the engine whenever it dies: at once at first, then ever more slowly, for as long as it takes."""
        attempts = 0
        while True:
            lived_s = await self._until_death()
            attempts = 0 if lived_s > _STABLE_AFTER_S else attempts
            await self._discard(EngineHealth(ok=False, reason="restarting", detail="it died and is being restarted"))
            while self._llm is None:
                backoff_s = min(self.config.restart_backoff_s * 2 ** min(attempts, 10), _LONGEST_BACKOFF_S)
                attempts += 1
                logger.error("vLLM for %s is down; start %d of it in %g s", self.config.model, attempts, backoff_s)
                self._up_at = time.monotonic() + backoff_s + self._start_took_s
                await asyncio.sleep(backoff_s)
                try:
                    self._llm = await self._build()
                except (EngineUnavailableError, ConfigurationError) as error:
                    logger.error("vLLM did not restart: %s", error)

    async def _until_death(self) -> float:
        started = time.perf_counter()
        # A running completion reports the death at once; an idle engine's is found by looking.
        while self._llm is not None and not self._llm.errored:
            if self._silence.stalled_s > _HUNG_AFTER_S:
                logger.error("vLLM has not moved for %.0f s: it is taken for dead", self._silence.stalled_s)
                break
            self._pulse.beat()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_EVERY_S):
                    await self._died.wait()
            # Inside the loop: a completion of the engine before this one may report its death late.
            self._died.clear()
        return time.perf_counter() - started

    async def _discard(self, why: EngineHealth) -> None:
        llm, self._llm, self._gone = self._llm, None, why
        self._asleep = False
        await self._pulse.aclose()
        self._silence.reset()
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


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


class _VllmMetrics:
    """Collects what vLLM has put into the process's default registry, and nothing else of it."""

    def collect(self) -> Iterator[Any]:
        from prometheus_client import REGISTRY

        return (metric for metric in REGISTRY.collect() if metric.name.startswith("vllm:"))


@contextmanager
def _without_errors_of(name: str) -> Iterator[None]:
    """Keep errors of the logger ``name`` out of the log: vLLM reports an engine that is stopped as one that died."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _sampling(params: SamplingParams) -> Any:
    from vllm import SamplingParams as VllmSamplingParams
    from vllm.sampling_params import RequestOutputKind

    return VllmSamplingParams(
        max_tokens=params.max_tokens,
        temperature=params.temperature,
        top_p=params.top_p,
        seed=params.seed,
        **asdict(params.shaping),
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
