"""Rollouts of the policy: groups of them for each question, on the loop and the driver that serve."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from searchr1.driver import DriveOptions, DriveStats, drive_to_end
from searchr1.engines.base import UNWATCHED_INTERVAL, Engine
from searchr1.evaluation.datasets import Question
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits
from searchr1.recorder import Recorder
from searchr1.retrieval.base import Retriever
from searchr1.rollout import start_rollout
from searchr1.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class RolloutOptions:
    """Settings of rollouts. The defaults are the paper's."""

    group_size: int = 1
    """Rollouts of one question."""
    temperature: float = 1.0
    """Sampling temperature: 1 in training, because the losses take the sampled tokens' logprobs as the policy's own.
    0 is greedy."""
    top_k: int = 3
    """Passages per search."""
    limits: Limits = field(default_factory=Limits)
    """Bounds of the loop."""
    profile: Profile = SEARCH_R1
    """The format that the policy is trained in."""
    search_timeout_s: float = 10.0
    """Seconds that one search may take."""
    max_concurrent: int = 256
    """Rollouts under way at once; the engine batches their completions continuously."""


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """A finished rollout of a question, however it ended."""

    question: Question
    group: int
    """Number of the question in its batch, which siblings share. Questions with the same text are separate groups."""
    rollout: Rollout
    num_failed_searches: int
    engine_error: str | None
    """Reason why the engine failed this rollout; what it sampled before is kept. None: it did not."""
    duration_s: float
    recorder: Recorder
    """Gives its record, with the passages that it read."""


async def roll_out(
    questions: Sequence[Question],
    engine: Engine,
    retriever: Retriever,
    tokenizer: Tokenizer,
    options: RolloutOptions,
    *,
    seed: int | None = None,
    done: Callable[[RolloutResult], None] = lambda _: None,
) -> list[RolloutResult]:
    """Answer each question ``group_size`` times, all at once; the results come group by group.

    With a ``seed`` each rollout samples with one of its own. Rollouts that the engine or a search failed are results
    like any other; nothing but bugs and cancellation is raised.

    Raises:
        ReservedTextError: a question contains the text of a special token.
    """
    gate = asyncio.Semaphore(options.max_concurrent)

    async def one(number: int) -> RolloutResult:
        group, sibling = divmod(number, options.group_size)
        async with gate:
            result = await _roll_out_one(
                questions[group],
                engine,
                retriever,
                tokenizer,
                options,
                group=group,
                session=f"rollout-{group}-{sibling}",
                seed=None if seed is None else seed + number,
            )
        done(result)
        return result

    async with asyncio.TaskGroup() as tasks:
        started = [tasks.create_task(one(number)) for number in range(len(questions) * options.group_size)]
    return [task.result() for task in started]


async def _roll_out_one(
    question: Question,
    engine: Engine,
    retriever: Retriever,
    tokenizer: Tokenizer,
    options: RolloutOptions,
    *,
    group: int,
    session: str,
    seed: int | None,
) -> RolloutResult:
    started = time.perf_counter()
    rollout = start_rollout(
        question.question, tokenizer, profile=options.profile, limits=options.limits, keep_sampled=True
    )
    asked = DriveOptions(
        session=session,
        temperature=options.temperature,
        seed=seed,
        top_k=options.top_k,
        search_timeout_s=options.search_timeout_s,
        stream_interval=UNWATCHED_INTERVAL,
        logprobs=True,
        priority_by_turn=True,
    )
    stats = DriveStats()
    recorder = Recorder(rollout, asked, stats)
    driven = await drive_to_end(rollout, engine, retriever, asked, stats, hear=recorder.add)
    error = None if driven.engine_error is None else str(driven.engine_error)
    duration_s = time.perf_counter() - started
    return RolloutResult(question, group, rollout, driven.num_failed_searches, error, duration_s, recorder)
