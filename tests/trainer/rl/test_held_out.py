"""The held-out questions: a draw that is the same for all runs, and scores by set and by hops."""

import pytest

from searchr1.data.questions import Question
from searchr1.engines.scripted import ScriptedEngine
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.held_out import draw_questions, main_score, scores
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult, roll_out
from tests.trainer.rl.test_rollouts import FOUND

RIGHT, WRONG = "<answer> Bamako </answer>", "<answer> Gao </answer>"


def question(number: int, data_source: str | None, hops: int | None = None) -> Question:
    return Question(f"{data_source}-{number}", "Capital of Mali?", ("Bamako",), hops, data_source=data_source)


MANY = [question(number, name) for name in ("nq", "musique") for number in range(50)]


def test_so_many_of_each_set_are_drawn_in_their_order() -> None:
    drawn = draw_questions([*MANY, question(0, None)], 20, seed=0)
    assert [sum(one.data_source == name for one in drawn) for name in ("nq", "musique", None)] == [20, 20, 1]
    assert list(drawn) == [one for one in MANY if one in drawn] + [question(0, None)]
    assert drawn[:20] != tuple(MANY[:20])


def test_the_draw_depends_on_the_seed_and_the_set_alone() -> None:
    both = draw_questions(MANY, 20, seed=0)
    assert draw_questions(MANY, 20, seed=0) == both
    assert draw_questions(MANY[50:], 20, seed=0) == both[20:]
    assert draw_questions(MANY, 20, seed=1) != both


def test_few_questions_are_all_asked() -> None:
    assert draw_questions(MANY, 50, seed=3) == tuple(MANY)


async def results(tokenizer: Tokenizer, script: list[str], asked: list[Question]) -> list[RolloutResult]:
    engine = ScriptedEngine(script, encode=tokenizer.encode)
    return await roll_out(asked, engine, FOUND, tokenizer, RolloutOptions(max_concurrent=1))


async def test_each_set_has_a_score_and_the_mean_weighs_sets_alike(tokenizer: Tokenizer) -> None:
    asked = [question(0, "nq"), question(1, "nq"), question(2, "nq"), question(0, "musique", 2)]
    record = scores("eval", await results(tokenizer, [RIGHT, RIGHT, WRONG, WRONG], asked))
    assert record["eval_em_nq"] == pytest.approx(2 / 3)
    assert record["eval_em_musique"] == 0.0
    assert record["eval_em"] == 0.5
    assert record["eval_em_sets"] == pytest.approx(1 / 3)
    assert record["eval_em_2"] == 0.0
    assert main_score(record) == record["eval_em_sets"]


async def test_one_set_has_one_score(tokenizer: Tokenizer) -> None:
    record = scores("eval_sampled", await results(tokenizer, [RIGHT], [question(0, "nq")]))
    assert record == {
        "eval_sampled_em": 1.0,
        "eval_sampled_searches": 0.0,
        "eval_sampled_answered": 1.0,
        "eval_sampled_tokens": len(tokenizer.encode(RIGHT)),
    }
    assert main_score(record) is None
    assert main_score({"eval_em": 0.25}) == 0.25
