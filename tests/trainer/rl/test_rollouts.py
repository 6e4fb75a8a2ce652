"""Rollouts in groups: on the serving loop, with sampled ids that stand, and with failures that are data."""

from searchr1.engines.scripted import ScriptedEngine, Step
from searchr1.errors import EngineError
from searchr1.evaluation.datasets import Question
from searchr1.loop.types import Passage, Status
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult, roll_out

SEARCH = "<search> Mali </search>"
ANSWER = "<answer> Bamako </answer>"
QUESTIONS = [Question("1", "What is the capital of Mali?", ("Bamako",)), Question("2", "Same?", ("x",))]


class OneRetriever:
    def __init__(self, outcome: SearchOutcome) -> None:
        self.outcome = outcome

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return self.outcome


FOUND = OneRetriever(Found((Passage("1", '"Mali"', "Its capital is Bamako."),)))


async def test_siblings_share_a_group_and_trials_come_in_order(tokenizer: Tokenizer) -> None:
    engine = ScriptedEngine([ANSWER] * 6, encode=tokenizer.encode)
    seen: list[RolloutResult] = []
    options = RolloutOptions(group_size=3, max_concurrent=2)
    results = await roll_out(QUESTIONS, engine, FOUND, tokenizer, options, seed=7, done=seen.append)
    assert [result.group for result in results] == [0, 0, 0, 1, 1, 1]
    assert [result.question.id for result in results] == ["1"] * 3 + ["2"] * 3
    assert len(seen) == 6
    assert sorted(params.seed or 0 for _, params, _, _ in engine.requests) == list(range(7, 13))
    assert len({session for _, _, session, _ in engine.requests}) == 6
    assert all(params.logprobs for _, params, _, _ in engine.requests)


async def test_sampled_ids_stand_with_their_logprobs(tokenizer: Tokenizer) -> None:
    engine = ScriptedEngine([SEARCH, ANSWER], encode=tokenizer.encode)
    [result] = await roll_out(QUESTIONS[:1], engine, FOUND, tokenizer, RolloutOptions())
    assert result.rollout.status is Status.COMPLETED
    sampled = [segment for segment in result.rollout.segments if segment.sampled]
    assert len(sampled) == 2
    for segment in sampled:
        assert segment.num_verbatim == len(segment.ids) == len(segment.logprobs or ())


async def test_failures_are_data(tokenizer: Tokenizer) -> None:
    script: list[str | list[Step]] = [["<think>", EngineError("gone")]]
    engine = ScriptedEngine(script, encode=tokenizer.encode)
    [result] = await roll_out(QUESTIONS[:1], engine, FOUND, tokenizer, RolloutOptions())
    assert result.rollout.status is Status.FAILED
    assert result.engine_error == "gone"
    engine = ScriptedEngine([SEARCH, ANSWER], encode=tokenizer.encode)
    broken = OneRetriever(SearchFailed("timeout", "too slow"))
    [result] = await roll_out(QUESTIONS[:1], engine, broken, tokenizer, RolloutOptions())
    assert result.rollout.status is Status.COMPLETED
    assert result.num_failed_searches == 1
    assert "<information></information>" in result.rollout.segments[2].text
