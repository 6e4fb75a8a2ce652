"""Rollouts by several processes: what one engine would give, in the same order, and an end where a process dies."""

import asyncio
import json
import multiprocessing
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from loadtests.processes import free_port
from searchr1.engines.base import Chunk, GivesMemory, SamplingParams
from searchr1.errors import ConfigurationError
from searchr1.evaluation.datasets import Question
from searchr1.loop.types import Passage, TokenIds
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.process_group import ProcessGroup, ProcessLostError
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.crew import Crew, TrainingEngine, _engine_config, at_work, open_crew
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult
from searchr1.trainer.rl.samples import sample_of
from tests.support.tiny_model import tiny_tokenizer

QUESTIONS = [Question(str(n), f"Where is town {n}?", ("Mali",), hops=n) for n in range(3)]
OPTIONS = RolloutOptions(group_size=2)
SEED = 1000
FATAL = Question("fatal", "Who ends the process?", ("nobody",))


class SeedEngine:
    """An engine that searches first and then answers with its seed; the fatal question ends its process."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        prompt = self._tokenizer.decode(prompt_ids)
        if FATAL.question in prompt:
            os._exit(7)
        searched = "a passage of" in prompt
        text = f"<answer> {params.seed} </answer>" if searched else f"<search> {params.seed} </search>"
        ids = tuple(self._tokenizer.encode(text))
        yield Chunk(text, ids, "stop", (-0.5,) * len(ids))


class NamedRetriever:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return Found((Passage("1", '"T"', f"a passage of {query}"),))


def crew(processes: ProcessGroup | None = None) -> Crew:
    tokenizer = tiny_tokenizer()
    return Crew(cast(TrainingEngine, SeedEngine(tokenizer)), NamedRetriever(), tokenizer, processes)


def told(results: list[RolloutResult]) -> list[Any]:
    """What can be compared of results, as JSON has it."""
    samples = [sample_of(result.rollout, reward=0.0, group=result.group, policy_version=0) for result in results]
    return [
        [
            r.question.id,
            r.question.hops,
            r.group,
            r.rollout.answer,
            r.rollout.num_searches,
            list(s.ids),
            list(s.loss_mask),
        ]
        for r, s in zip(results, samples, strict=True)
    ]


async def alone() -> tuple[list[Any], list[Any]]:
    one = crew()
    async with at_work(one):
        sampled = await one.roll_out(QUESTIONS, OPTIONS, seed=SEED)
        greedy = await one.roll_out(QUESTIONS[:1], RolloutOptions(temperature=0.0))
    return told(sampled), told(greedy)


def work(rank: int, port: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    asyncio.run(_work(ProcessGroup.join("cpu"), out))


async def _work(processes: ProcessGroup, out: Path) -> None:
    mine = crew(processes)
    seen: list[RolloutResult] = []
    async with at_work(mine):
        if processes.is_first:
            sampled = await mine.roll_out(QUESTIONS, OPTIONS, seed=SEED, done=seen.append)
            greedy = await mine.roll_out(QUESTIONS[:1], RolloutOptions(temperature=0.0))
            (out / "told.json").write_text(json.dumps([told(sampled), told(greedy), len(seen)]))
    async with at_work(mine):
        (out / f"again-{processes.rank}").touch()
    async with at_work(mine):
        if processes.is_first:
            try:
                await mine.roll_out([QUESTIONS[0], FATAL], RolloutOptions())
            except ProcessLostError as error:
                (out / "lost.txt").write_text(str(error))
                os._exit(0)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes left what they did; the second one died in the end."""
    out, port = tmp_path_factory.mktemp("together"), free_port()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, port, out)) for rank in range(2)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(timeout=120)
        assert [process.exitcode for process in processes] == [0, 7]
    finally:
        for process in processes:
            process.kill()
            process.join()
    return out


async def test_two_processes_give_what_one_does(together: Path) -> None:
    sampled, greedy, num_done = json.loads((together / "told.json").read_text())
    wanted_sampled, wanted_greedy = await alone()
    assert sampled == wanted_sampled
    assert greedy == wanted_greedy
    assert [row[3] for row in sampled] == [str(SEED + number) for number in range(6)]
    assert num_done == 6


def test_work_goes_on_after_a_dismissal(together: Path) -> None:
    assert (together / "again-0").exists()
    assert (together / "again-1").exists()


def test_a_process_that_dies_ends_the_wait_for_it(together: Path) -> None:
    assert "another process" in (together / "lost.txt").read_text()


class SleepyEngine(GivesMemory):
    def __init__(self) -> None:
        self.heard: list[str] = []

    async def sleep(self) -> None:
        self.heard.append("sleep")

    async def take_weights(self, folder: Path, *, version: str) -> None:
        self.heard.append(f"take {folder} {version}")


@pytest.mark.parametrize("sleeps", [False, True])
async def test_an_engine_rests_where_it_was_started_to(sleeps: bool) -> None:
    engine = SleepyEngine()
    resting = Crew(cast(TrainingEngine, engine), NamedRetriever(), tiny_tokenizer(), sleeps=sleeps)
    await resting.rest()
    await resting.take_weights(Path("w"), version="3")
    assert engine.heard == (["sleep", "take w 3"] if sleeps else ["take w 3"])


def config(**rollout: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"algorithm": "grpo", "model": "m", "data": "d", "retriever": "r", "out_dir": "o", "rollout": rollout}
    )


def test_an_engine_of_each_gpu_gets_that_gpu_and_may_sleep() -> None:
    chosen = config(engines="each", sleep=True, group_size=2)
    opened = _engine_config(chosen, Path("m"), torch.device("cuda", 3))
    assert opened.engine_args == {"device_ids": [3], "enable_sleep_mode": True}
    assert opened.gpu_memory_share == 0.5
    assert _engine_config(chosen, Path("m"), torch.device("cpu")).engine_args == {}
    of_transformers = _engine_config(config(engine="transformers", sleep=True), Path("m"), torch.device("cuda", 3))
    assert (of_transformers.device, dict(of_transformers.engine_args)) == ("cuda:3", {})


def test_servers_elsewhere_are_not_shared_out() -> None:
    chosen = config(engines="each", engine_urls=("http://127.0.0.1:1",))
    with pytest.raises(ConfigurationError, match=r"leave rollout\.engines at first"):
        _engine_config(chosen, Path("m"), torch.device("cpu"))


async def test_engines_of_several_machines_have_no_common_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(ConfigurationError, match="one machine"):
        async with open_crew(config(engines="each"), Path("m"), ProcessGroup(torch.device("cpu"), 0, 2)):
            pass
