"""Rollouts and updates of one model, timed apart: the engine alone on the device, then the trainer alone."""

import asyncio
import gc
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from loadtests.gpu.machine import Machine, Peak
from loadtests.gpu.shapes import Shape, config_of, write_random
from searchr1.engines.base import SamplingParams
from searchr1.engines.transformers.engine import TransformersEngine
from searchr1.loop.types import Status
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.learner import Learner
from searchr1.trainer.rl.memory_estimate import estimate
from searchr1.trainer.rl.samples import Sample
from searchr1.trainer.rl.shapes import shape_of

FIRST_ID, NUM_IDS = 100, 150
"""Ids that prompts and trajectories are made of: words of any tokenizer, special tokens of none."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is timed."""

    num_completions: int
    prompt_tokens: int
    completion_tokens: int
    num_groups: int
    group_size: int
    observation_tokens: int
    max_tokens_per_pass: int
    repeats: int


WORK = Work(64, 512, 128, 16, 8, 450, 16_384, 2)
REHEARSED = Work(3, 12, 4, 2, 2, 10, 400, 1)


@dataclass(frozen=True, slots=True)
class Timing:
    """Figures of one shape. Rates are of the fastest of some repeats, after one that is not counted."""

    shape: str
    num_parameters: int = 0
    rollout_tokens_per_s: float | None = None
    """Sampled tokens by seconds, all completions at once, in bfloat16."""
    rollout_peak_gib: float | None = None
    update_tokens_per_s: float | None = None
    """Tokens of trajectories, prompts and observations included, by the seconds of a whole update."""
    update_s: float | None = None
    update_peak_gib: float | None = None
    kept_gib: float | None = None
    """What of the update's peak is kept whatever is passed, by the estimate of ``searchr1 train memory``."""
    added_gib: float | None = None
    """What an update adds to that at its peak, likewise."""
    left_out: str | None = None
    """Reason why it was not measured, or not to the end."""


def time_shape(
    shape: Shape, tokenizer: Path, folder: Path, machine: Machine, work: Work, left_s: Callable[[], float]
) -> Timing:
    """Write the model, time it, and free the device again. A shape that does not fit is told as left out."""
    if left_s() < shape.needs_s:
        return Timing(shape.name, left_out=f"{left_s():.0f} s were left, and it takes {shape.needs_s:.0f} s")
    device = torch.device(machine.torch_device)
    num_parameters = write_random(config_of(shape), tokenizer, folder, device)
    config = update_config(folder, machine, work)
    found = estimate(config, shape_of(str(folder)), 1)
    estimated = Timing(shape.name, num_parameters, kept_gib=found.kept, added_gib=found.added)
    try:
        gc.collect()
        with Peak(machine) as rollout_peak:
            rollout_tokens_per_s = asyncio.run(_time_rollouts(folder, device, work))
        gc.collect()
        with Peak(machine) as update_peak:
            num_tokens, update_s = _time_update(config, folder, work)
    except torch.OutOfMemoryError:
        return replace(estimated, left_out="it does not fit into memory")
    finally:
        gc.collect()
    return replace(
        estimated,
        rollout_tokens_per_s=rollout_tokens_per_s,
        rollout_peak_gib=rollout_peak.gib,
        update_tokens_per_s=num_tokens / update_s,
        update_s=update_s,
        update_peak_gib=update_peak.gib,
    )


async def _time_rollouts(folder: Path, device: torch.device, work: Work) -> float:
    """Return the sampled tokens per second of a batch of completions."""
    engine = TransformersEngine.load(
        folder, device=device.type, dtype=torch.bfloat16, max_batch=work.num_completions, kv_cache_gib=8.0
    )
    choose = random.Random(0)
    async with aclosing(engine):
        rates = []
        for number in range(1 + work.repeats):
            prompts = [_ids(choose, work.prompt_tokens) for _ in range(work.num_completions)]
            started = time.perf_counter()
            counts = await asyncio.gather(*(_complete(engine, ids, work, seed) for seed, ids in enumerate(prompts)))
            if number > 0:
                rates.append(sum(counts) / (time.perf_counter() - started))
    return max(rates)


async def _complete(engine: TransformersEngine, ids: tuple[int, ...], work: Work, seed: int) -> int:
    params = SamplingParams(work.completion_tokens, seed=seed, logprobs=True, stream_interval=16)
    async with aclosing(engine.generate(ids, params, session=str(seed))) as chunks:
        return sum([len(chunk.token_ids) async for chunk in chunks])


def _time_update(config: TrainConfig, folder: Path, work: Work) -> tuple[int, float]:
    """Return the tokens of one update, and the seconds of the fastest."""
    learner = Learner(config, folder, ProcessGroup.join(config.device), pad_id=0)
    samples = timed_samples(work)
    walls = []
    for step in range(1 + work.repeats):
        started = time.perf_counter()
        learner.update(samples, step)
        if config.device == "cuda":
            torch.cuda.synchronize()
        walls.append(time.perf_counter() - started)
    return sum(len(sample.ids) for sample in samples), min(walls[1:])


def update_config(folder: Path, machine: Machine, work: Work) -> TrainConfig:
    """Return the run whose update is timed."""
    return TrainConfig.model_validate(
        {
            "algorithm": "grpo",
            "model": str(folder),
            "data": "made on the spot",
            "retriever": "none",
            "out_dir": str(folder),
            "device": machine.torch_device,
            "rollout": {
                "questions_per_step": work.num_groups,
                "group_size": work.group_size,
                "max_trajectory_tokens": max(64, work.completion_tokens + work.observation_tokens),
            },
            "optimizer": {"max_tokens_per_pass": work.max_tokens_per_pass, "activation_checkpointing": True},
        }
    )


def timed_samples(work: Work) -> list[Sample]:
    """Return rollouts of one search each: prompt, completion, observation, completion; rewards by chance."""
    choose = random.Random(0)
    samples = []
    for number in range(work.num_groups * work.group_size):
        half = work.completion_tokens // 2
        parts = ((work.prompt_tokens // 2, False), (half, True), (work.observation_tokens, False), (half, True))
        loss_mask = tuple(sampled for length, sampled in parts for _ in range(length))
        samples.append(
            Sample(
                ids=_ids(choose, len(loss_mask)),
                loss_mask=loss_mask,
                engine_logprobs=(0.0,) * len(loss_mask),
                has_engine_logprob=(False,) * len(loss_mask),
                num_prompt_tokens=work.prompt_tokens // 2,
                # The first of a group is right and the second is not, so that every group has a gradient.
                reward=float(choose.random() < 0.5 if number % work.group_size > 1 else number % work.group_size == 0),
                group=number // work.group_size,
                policy_version=0,
                status=Status.COMPLETED,
                num_searches=1,
                num_turns=2,
                num_invalid=0,
            )
        )
    return samples


def _ids(choose: random.Random, count: int) -> tuple[int, ...]:
    return tuple(choose.randrange(FIRST_ID, FIRST_ID + NUM_IDS) for _ in range(count))
