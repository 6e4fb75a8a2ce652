"""The first process's part in a step: rolling out the policy on the engine, and scoring the rollouts."""

import contextlib
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import numpy.typing as npt
import torch

from searchr1.errors import EngineError
from searchr1.evaluation.datasets import Question, load_questions
from searchr1.evaluation.metrics import exact_match
from searchr1.loop.profiles.registry import profile_named
from searchr1.retrieval.base import Retriever
from searchr1.rollout import check_profile
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.process_group import ProcessGroup
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.crew import Crew, open_crew
from searchr1.trainer.rl.crew import TrainingEngine as TrainingEngine
from searchr1.trainer.rl.rewards import Reward, outcome_of, reward_named
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult
from searchr1.trainer.rl.samples import Sample, sample_of


@dataclass(frozen=True, slots=True)
class Actor:
    """Engine, retriever, questions and reward of a training run; ``open_actor`` opens one."""

    config: TrainConfig
    engine: TrainingEngine
    retriever: Retriever
    tokenizer: Tokenizer
    reward: Reward
    questions: Sequence[Question]
    eval_questions: Sequence[Question]
    crew: Crew | None = None
    """Processes that roll out with this one; None: it does so alone."""

    async def collect(
        self, step: int, done: Callable[[RolloutResult], None] = lambda _: None
    ) -> tuple[list[Sample], dict[str, float]]:
        """Roll out and score the questions of ``step``; return the samples and what to log about them.

        Rollouts that the engine failed are left out, and counted.

        Raises:
            EngineError: none is left.
        """
        section = self.config.rollout
        started = time.perf_counter()
        results = await self._crew.roll_out(
            self.questions_of(step),
            self._options(group_size=section.group_size, temperature=1.0),
            seed=int(np.random.SeedSequence((self.config.seed, step)).generate_state(1)[0] >> 1),
            done=done,
        )
        rollout_s = time.perf_counter() - started
        kept = [result for result in results if result.engine_error is None]
        if not kept:
            raise EngineError(f"the engine failed every rollout of step {step}: {results[0].engine_error}")
        started = time.perf_counter()
        samples = [
            sample_of(
                result.rollout,
                reward=self.reward(outcome_of(result.question, result.rollout)),
                group=result.group,
                policy_version=step,
            )
            for result in kept
        ]
        record = _summary(kept, samples) | {
            "num_rollouts": len(kept),
            "num_failed": len(results) - len(kept),
            "rollout_s": rollout_s,
            "reward_s": time.perf_counter() - started,
            "rollout_tokens_per_s": sum(sample.num_sampled_tokens for sample in samples) / rollout_s,
        }
        return samples, record

    async def evaluate(self, done: Callable[[RolloutResult], None] = lambda _: None) -> dict[str, float]:
        """Answer the evaluation's questions greedily; a rollout that the engine failed counts as wrong."""
        started = time.perf_counter()
        options = self._options(group_size=1, temperature=0.0)
        results = await self._crew.roll_out(self.eval_questions, options, done=done)
        right = [exact_match(result.rollout.answer, result.question.golden_answers) for result in results]
        by_hops: dict[int, list[bool]] = defaultdict(list)
        for result, correct in zip(results, right, strict=True):
            if result.question.hops is not None:
                by_hops[result.question.hops].append(correct)
        return {
            "eval_em": fmean(right),
            **{f"eval_em_{hops}": fmean(found) for hops, found in sorted(by_hops.items())},
            "eval_searches": fmean(result.rollout.num_searches for result in results),
            "eval_answered": fmean(result.rollout.answer is not None for result in results),
            "eval_tokens": fmean(result.rollout.num_sampled_tokens for result in results),
            "eval_s": time.perf_counter() - started,
        }

    def questions_of(self, step: int) -> list[Question]:
        """Return the questions of ``step``: epoch after epoch, each in another order that the seed decides."""
        count, num = self.config.rollout.questions_per_step, len(self.questions)
        chosen = []
        for position in range(step * count, (step + 1) * count):
            epoch, place = divmod(position, num)
            chosen.append(self.questions[int(_order(num, self.config.seed, epoch)[place])])
        return chosen

    @property
    def _crew(self) -> Crew:
        return self.crew or Crew(self.engine, self.retriever, self.tokenizer)

    def _options(self, *, group_size: int, temperature: float) -> RolloutOptions:
        section = self.config.rollout
        return RolloutOptions(
            group_size=group_size,
            temperature=temperature,
            top_k=section.top_k,
            limits=section.limits(),
            profile=profile_named(self.config.profile),
            search_timeout_s=section.search_timeout_s,
            max_concurrent=section.max_concurrent,
        )


@contextlib.asynccontextmanager
async def open_actor(
    config: TrainConfig, source: Path, *, processes: ProcessGroup | None = None
) -> AsyncIterator[Actor]:
    """Load the questions, open the retriever and start the engine on the model in ``source``; close them at the end.

    Where ``processes`` share the rollouts, the others have to ``open_crew`` meanwhile.

    Raises:
        DatasetError, ConfigurationError, CorpusError, EngineUnavailableError: one of them can't be had.
    """
    check_profile(profile_named(config.profile), Tokenizer.load(str(source)))
    reward = reward_named(config.reward)
    questions = load_questions(config.data, split=config.data_split)
    eval_questions: Sequence[Question] = ()
    if config.eval_data is not None:
        eval_questions = load_questions(config.eval_data, split=config.eval_split, limit=config.num_eval_questions)
    async with open_crew(config, source, processes or ProcessGroup(torch.device(config.device))) as crew:
        yield Actor(config, crew.engine, crew.retriever, crew.tokenizer, reward, questions, eval_questions, crew=crew)


@contextlib.contextmanager
def weights_folder(config: TrainConfig) -> Iterator[Path]:
    """Give a folder for weights on their way to the engine, in memory where the system has such a place.

    Engines on other machines have no part in this one's memory: for them it is in ``out_dir``.
    """
    if config.rollout.engine_urls:
        yield config.out_dir.resolve() / "weights"
        return
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="searchr1-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder) / "weights"


@lru_cache(maxsize=2)
def _order(num: int, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(num)


def _summary(results: Sequence[RolloutResult], samples: Sequence[Sample]) -> dict[str, float]:
    rewards = defaultdict[int, list[float]](list)
    for sample in samples:
        rewards[sample.group].append(sample.reward)
    return {
        "reward_mean": fmean(sample.reward for sample in samples),
        "reward_std": pstdev(sample.reward for sample in samples),
        "em": fmean(exact_match(result.rollout.answer, result.question.golden_answers) for result in results),
        "answered": fmean(result.rollout.answer is not None for result in results),
        "searches": fmean(sample.num_searches for sample in samples),
        "failed_searches": fmean(result.num_failed_searches for result in results),
        "turns": fmean(sample.num_turns for sample in samples),
        "invalid": fmean(sample.num_invalid for sample in samples),
        "sampled_tokens": fmean(sample.num_sampled_tokens for sample in samples),
        "trajectory_tokens": fmean(len(sample.ids) for sample in samples),
        "mixed_groups": fmean(len(set(group)) > 1 for group in rewards.values()),
    }
