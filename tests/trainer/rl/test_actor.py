"""The part that rolls out and scores: which questions, what is kept, what is logged."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from searchr1.engines.scripted import ScriptedEngine, Step
from searchr1.errors import EngineError
from searchr1.evaluation.datasets import Question
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchOutcome
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.actor import Actor
from searchr1.trainer.rl.config import TrainConfig
from searchr1.trainer.rl.crew import TrainingEngine
from searchr1.trainer.rl.kept_rollouts import KeptRollouts
from searchr1.trainer.rl.rewards import reward_named
from searchr1.trainer.rl.weights_folder import weights_folder

RIGHT = "<think> known </think>\n<answer> Bamako </answer>"
WRONG = "<answer> Gao </answer>"
SEARCH = "<search> Mali </search>"
GONE: list[str | Step] = ["<think>", EngineError("gone")]
QUESTIONS = [Question(str(n), f"What is the capital of country {n}?", ("Bamako",), hops=1 + n % 2) for n in range(6)]


class OneRetriever:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return Found((Passage("1", '"Mali"', "Its capital is Bamako."),))


def actor(tokenizer: Tokenizer, script: list[Any], **rollout: Any) -> Actor:
    config = TrainConfig.model_validate(
        {
            "algorithm": "grpo",
            "model": "none",
            "data": "none",
            "retriever": "none",
            "out_dir": "none",
            "rollout": {"questions_per_step": 2, "group_size": 2, "max_concurrent": 1} | rollout,
        }
    )
    engine = cast(TrainingEngine, ScriptedEngine(script, encode=tokenizer.encode))
    return Actor(config, engine, OneRetriever(), tokenizer, reward_named("exact_match"), QUESTIONS, QUESTIONS[:2])


async def test_a_step_is_scored_and_summed_up(tokenizer: Tokenizer) -> None:
    samples, record = await actor(tokenizer, [RIGHT, WRONG, SEARCH, RIGHT, RIGHT]).collect(3)
    assert [sample.reward for sample in samples] == [1.0, 0.0, 1.0, 1.0]
    assert [sample.group for sample in samples] == [0, 0, 1, 1]
    assert {sample.policy_version for sample in samples} == {3}
    assert record["reward_mean"] == record["em"] == 0.75
    assert record["searches"] == 0.25
    assert record["mixed_groups"] == 0.5
    assert (record["num_rollouts"], record["num_failed"]) == (4, 0)


async def test_what_the_engine_failed_is_left_out_and_counted(tokenizer: Tokenizer) -> None:
    samples, record = await actor(tokenizer, [RIGHT, GONE, WRONG, RIGHT]).collect(0)
    assert [sample.group for sample in samples] == [0, 1, 1]
    assert (record["num_rollouts"], record["num_failed"]) == (3, 1)


async def test_a_step_without_a_rollout_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(EngineError, match="every rollout of step 0: gone"):
        await actor(tokenizer, [GONE] * 4).collect(0)


async def test_evaluation_is_greedy_and_tells_hops_apart(tokenizer: Tokenizer) -> None:
    acting = actor(tokenizer, [RIGHT, WRONG])
    record = await acting.evaluate()
    assert record["eval_em"] == 0.5
    assert {record["eval_em_1"], record["eval_em_2"]} == {1.0, 0.0}
    assert {params.temperature for _, params, _, _ in cast(Any, acting.engine).requests} == {0.0}


async def test_an_evaluation_may_sample_beside_the_greedy_answers(tokenizer: Tokenizer) -> None:
    acting = actor(tokenizer, [RIGHT, WRONG, RIGHT, RIGHT, WRONG, RIGHT] * 2)
    acting = replace(acting, config=acting.config.model_copy(update={"num_eval_samples": 2}))
    record = await acting.evaluate()
    assert (record["eval_em"], record["eval_sampled_em"]) == (0.5, 0.75)
    sampling = [(params.temperature, params.seed) for _, params, _, _ in cast(Any, acting.engine).requests]
    assert [temperature for temperature, _ in sampling] == [0.0] * 2 + [1.0] * 4
    assert len({seed for _, seed in sampling[2:]}) == 4
    await acting.evaluate()
    again = [(params.temperature, params.seed) for _, params, _, _ in cast(Any, acting.engine).requests[6:]]
    assert again == sampling


async def test_rollouts_are_kept_with_rewards_and_evaluations_without(tokenizer: Tokenizer, tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path, model="m", num_each=None, max_bytes=None, seed=0)
    acting = replace(actor(tokenizer, [RIGHT, GONE, WRONG, RIGHT, RIGHT, WRONG]), kept=kept)
    await acting.collect(6)
    await acting.evaluate(7)
    step, evaluation = (tmp_path / "rollouts" / f"{phase}-000007.jsonl" for phase in ("step", "evaluation"))
    lines = [json.loads(line) for line in step.read_text("utf-8").splitlines()]
    assert [(line["reward"], line["trajectory"]["policy_version"]) for line in lines] == [
        (1.0, "6"),
        (0.0, "6"),
        (1.0, "6"),
        (None, "6"),
    ]
    lines = [json.loads(line) for line in evaluation.read_text("utf-8").splitlines()]
    assert [(line["exact_match"], line["reward"], line["trajectory"]["policy_version"]) for line in lines] == [
        (True, None, "7"),
        (False, None, "7"),
    ]


def test_every_question_comes_once_an_epoch_in_an_order_of_the_seed(tokenizer: Tokenizer) -> None:
    acting = actor(tokenizer, [], questions_per_step=4)
    asked = [question.id for step in range(6) for question in acting.questions_of(step)]
    assert len(asked) == 24
    epochs = [asked[at : at + 6] for at in range(0, 24, 6)]
    assert all(sorted(epoch) == [str(n) for n in range(6)] for epoch in epochs)
    assert len(set(map(tuple, epochs))) > 1
    again = replace(acting, config=acting.config.model_copy(update={"seed": 1}))
    assert [question.id for question in again.questions_of(0)] != asked[:4]


def test_seeds_of_steps_differ(tokenizer: Tokenizer) -> None:
    async def seeds(step: int) -> set[int | None]:
        acting = actor(tokenizer, [RIGHT] * 4)
        await acting.collect(step)
        return {params.seed for _, params, _, _ in cast(Any, acting.engine).requests}

    one, two = asyncio.run(seeds(0)), asyncio.run(seeds(1))
    assert len(one) == 4
    assert not one & two


def test_weights_travel_through_a_folder_that_goes(tokenizer: Tokenizer) -> None:
    with weights_folder(actor(tokenizer, []).config, 1000) as folder:
        assert not folder.exists()
        parent: Path = folder.parent
        assert parent.is_dir()
    assert not parent.exists()
