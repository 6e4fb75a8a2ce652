"""The processes that roll out: the first one alone, or all of them, each its share on an engine of its own.

The first process gives the orders: questions, options and a seed. Each process rolls out its share of the questions,
and the results go to the first, in the order of the questions and with the seeds that they would have on one engine. So
the others need to know neither data nor rewards, nor what the rollouts are for.
"""

import asyncio
import io
import pickle
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from searchr1.engines.base import Engine, GivesMemory, TakesWeights
from searchr1.engines.factory import EngineConfig, open_engine
from searchr1.errors import ConfigurationError
from searchr1.evaluation.datasets import Question
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.registry import profile_named
from searchr1.retrieval.base import Retriever
from searchr1.retrieval.factory import open_retriever
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult, roll_out


class TrainingEngine(Engine, Protocol):
    """An engine that samples from the policy and takes its new weights."""

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """See ``TakesWeights.take_weights``."""
        ...


Done = Callable[[RolloutResult], None]
"""Called with each rollout that has ended."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What to roll out, as ``roll_out`` takes it."""

    questions: Sequence[Question]
    options: RolloutOptions
    seed: int | None


@dataclass(frozen=True, slots=True)
class Crew:
    """This process's engine, retriever and tokenizer, and the processes that share the work, or None where none do."""

    engine: TrainingEngine
    retriever: Retriever
    tokenizer: Tokenizer
    processes: ProcessGroup | None = None
    sleeps: bool = False
    """Whether the engine gives its memory up between rollouts."""

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Carry out the first process's orders until it leaves its block; the others' blocks begin after that.

        Raises:
            ProcessLostError: another process has ended.
        """
        group = self.processes
        if group is not None and not group.is_first:
            while (order := await self._ordered(group)) is not None:
                await asyncio.to_thread(group.gather, self._written(await self._share(order)))
        yield
        if group is not None and group.is_first:
            await asyncio.to_thread(group.broadcast, None)

    async def roll_out(
        self,
        questions: Sequence[Question],
        options: RolloutOptions,
        *,
        seed: int | None = None,
        done: Done = lambda _: None,
    ) -> list[RolloutResult]:
        """Return what ``rollouts.roll_out`` returns, by all processes that share; within ``at_work``, in the first.

        Raises:
            ProcessLostError: another process has ended.
        """
        order, group = _Order(questions, options, seed), self.processes
        if group is None:
            return await self._share(order, done)
        await asyncio.to_thread(group.broadcast, self._written(order))
        results = await self._share(order, done)
        for part in (await asyncio.to_thread(group.gather, b""))[1:]:
            for result in self._read(part):
                done(result)
                results.append(result)
        return results

    async def rest(self) -> None:
        """Let the engine sleep until it takes weights, where ``sleeps``. Raises ``EngineError``."""
        if self.sleeps and isinstance(self.engine, GivesMemory):
            await self.engine.sleep()

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Give the engine the weights in ``folder`` once the first process is here too. Raises ``EngineError``."""
        if self.processes is not None:
            await asyncio.to_thread(self.processes.wait_for_first)
        if self.sleeps:
            # What the trainer's allocator keeps for later is what the engine wakes up into.
            torch.cuda.empty_cache()
        await self.engine.take_weights(folder, version=version)

    async def _share(self, order: _Order, done: Done = lambda _: None) -> list[RolloutResult]:
        """Roll out this process's part of the questions, which lie together."""
        rank, size = (0, 1) if self.processes is None else (self.processes.rank, self.processes.size)
        start, end = (len(order.questions) * number // size for number in (rank, rank + 1))
        results = await roll_out(
            order.questions[start:end],
            self.engine,
            self.retriever,
            self.tokenizer,
            order.options,
            seed=None if order.seed is None else order.seed + start * order.options.group_size,
            done=done,
        )
        return [replace(result, group=start + result.group) for result in results]

    async def _ordered(self, group: ProcessGroup) -> _Order | None:
        """Wait for the first process's next order; None is its dismissal."""
        data: bytes | None = await asyncio.to_thread(group.broadcast, None)
        if data is None:
            return None
        order: _Order = self._read(data)
        return order

    def _written(self, value: object) -> bytes:
        buffer = io.BytesIO()
        _Writer(buffer, self.tokenizer).dump(value)
        return buffer.getvalue()

    def _read(self, data: bytes) -> Any:
        return _Reader(io.BytesIO(data), self.tokenizer).load()


class _Writer(pickle.Pickler):
    """Writes all but tokenizer and profile, which every process has."""

    def __init__(self, file: io.BytesIO, tokenizer: Tokenizer) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._tokenizer = tokenizer

    def persistent_id(self, value: object) -> tuple[str, str] | None:
        """Return the name of what is not written."""
        if value is self._tokenizer:
            return "tokenizer", ""
        return ("profile", value.name) if isinstance(value, Profile) else None


class _Reader(pickle.Unpickler):
    """Reads what a ``_Writer`` of another process of this run has written."""

    def __init__(self, file: io.BytesIO, tokenizer: Tokenizer) -> None:
        super().__init__(file)
        self._tokenizer = tokenizer

    def persistent_load(self, name: tuple[str, str]) -> Tokenizer | Profile:
        """Return this process's own."""
        kind, which = name
        return self._tokenizer if kind == "tokenizer" else profile_named(which)


def at_work(crew: Crew | None) -> AbstractAsyncContextManager[None]:
    """Return ``Crew.at_work`` of ``crew``; nothing happens in a process that has none."""
    return nullcontext() if crew is None else crew.at_work()


@asynccontextmanager
async def open_crew(config: TrainConfig, source: Path, processes: ProcessGroup) -> AsyncIterator[Crew]:
    """Open this process's retriever, and its engine on the model in ``source``; close them at the end.

    Raises:
        ConfigurationError, CorpusError, EngineUnavailableError: one of them can't be had.
    """
    shares = config.rollout.engines == "each" and processes.size > 1
    if shares and processes.spans_machines:
        raise ConfigurationError(
            "rollout.engines: each works on one machine, whose engines read weights from its memory"
        )
    tokenizer = Tokenizer.load(str(source))
    async with (
        open_retriever(config.retriever) as retriever,
        open_engine(_engine_config(config, source, processes.device)) as engine,
    ):
        if not isinstance(engine, TakesWeights):
            raise ConfigurationError(f"the engine '{config.rollout.engine}' takes no new weights, which training needs")
        yield Crew(engine, retriever, tokenizer, processes if shares else None, _sleeps(config, processes.device))


def _sleeps(config: TrainConfig, device: torch.device) -> bool:
    return config.rollout.sleep and device.type == "cuda" and not config.rollout.engine_urls


def _engine_config(config: TrainConfig, source: Path, device: torch.device) -> EngineConfig:
    section = config.rollout
    if section.engine_urls and section.engine != "vllm":
        raise ConfigurationError("rollout.engine_urls are vLLM servers: leave rollout.engine at vllm")
    if section.engine_urls and section.engines == "each":
        raise ConfigurationError("rollout.engine_urls are asked by the first process: leave rollout.engines at first")
    kind = "vllm-pool" if section.engine_urls else section.engine
    # Servers elsewhere have names of their own for the model.
    model = "" if kind == "vllm-pool" else str(source)
    common = EngineConfig(
        kind, model, urls=section.engine_urls, device=str(device), max_num_seqs=section.max_concurrent
    )
    if kind in ("transformers", "vllm-pool"):  # These take types and bounds from the checkpoint or their servers.
        return common
    of_gpu: dict[str, Any] = {} if device.index is None else {"device_ids": [device.index]}
    if _sleeps(config, device):
        of_gpu["enable_sleep_mode"] = True
    return replace(
        common,
        dtype=section.engine_dtype,
        max_model_len=section.max_context_tokens + section.max_completion_tokens,
        kv_cache_gib=section.kv_cache_gib,
        gpu_memory_share=section.gpu_memory_share if device.type == "cuda" else None,
        enforce_eager=section.enforce_eager,
        priority_scheduling=True,
        engine_args=of_gpu,
    )
