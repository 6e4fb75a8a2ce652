"""Rewards by the table, the form that the reference's v0.3 asks for, and the registry."""

import sys
import types
from dataclasses import replace

import pytest

from searchr1.data.questions import Question
from searchr1.errors import ConfigurationError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Limits, Passage, Segment, Status
from searchr1.trainer.rl import rewards
from searchr1.trainer.rl.rewards import (
    Outcome,
    exact_match_reward,
    format_reward_v0_3,
    is_well_formed,
    outcome_of,
    random_reward,
    register,
    reward_named,
    sub_em_reward,
)

QUESTION = Question("1", "Capital of Mali?", ("Bamako", "Bamako District"))
SEARCH = "<think> Where? </think>\n<search> Mali </search>"
ANSWER = "<think> I see. </think>\n<answer> Bamako </answer>"


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def outcome(*completions: str, answer: str | None = "Bamako") -> Outcome:
    """Return an outcome with an observation full of tags after each completion but the last."""
    segments = [Segment("prompt", 0, "Q", (1,), False)]
    for turn, text in enumerate(completions, start=1):
        segments.append(Segment("completion", turn, text, (2,), True))
        if turn < len(completions):
            segments.append(Segment("observation", turn, "<information><think></answer>", (3,), False))
    return Outcome(QUESTION.question, QUESTION.golden_answers, answer, Status.COMPLETED, tuple(segments))


def rolled_out(*completions: str, max_trajectory_tokens: int = 4096) -> Rollout:
    limits = Limits(max_turns=2, max_trajectory_tokens=max_trajectory_tokens)
    rollout = Rollout(prompt="Q", prompt_ids=(1,), encode=encode, limits=limits)
    for text in completions:
        rollout.receive_text(text)
        rollout.end_completion("stop")
        if rollout.status is None and "<search>" in text:
            rollout.receive_passages([Passage("1", "Mali", "Its capital is Bamako.")])
    return rollout


@pytest.mark.parametrize(
    ("answer", "em", "sub_em"),
    [("the bamako!", 1, 1), ("It is Bamako", 0, 1), ("Bama", 0, 0), ("", 0, 0), (None, 0, 0)],
)
def test_matches_score_one_or_nothing(answer: str | None, em: float, sub_em: float) -> None:
    assert exact_match_reward(outcome(ANSWER, answer=answer)) == em
    assert sub_em_reward(outcome(ANSWER, answer=answer)) == sub_em


@pytest.mark.parametrize(
    ("completions", "answer", "reward"),
    [
        ((SEARCH, ANSWER), "Bamako", 1),
        ((SEARCH, "<answer> Bamako </answer>"), "Bamako", 0.8),
        ((SEARCH, ANSWER), "Kayes", 0.2),
        ((SEARCH, "<answer> Kayes </answer>"), "Kayes", 0.1),
        ((SEARCH, "<think> Hm."), None, 0.1),
        ((SEARCH,), None, 0.1),
        ((), None, 0.1),
    ],
)
def test_the_table_of_the_v0_3_reward(completions: tuple[str, ...], answer: str | None, reward: float) -> None:
    assert format_reward_v0_3(outcome(*completions, answer=answer)) == reward


def test_a_random_reward_knows_the_ids_alone() -> None:
    def rewarded(token: int, answer: str | None) -> float:
        prompt, *rest = outcome(SEARCH, ANSWER, answer=answer).segments
        drawn = replace(prompt, ids=(token,))
        return random_reward(replace(outcome(answer=answer), segments=(drawn, *rest)))

    right = [rewarded(token, "Bamako") for token in range(400)]
    wrong = [rewarded(token, "Kayes") for token in range(400)]
    missing = [rewarded(token, None) for token in range(400)]
    assert right == wrong == missing
    assert set(right) == {0.0, 1.0}
    assert 0.4 < sum(right) / len(right) < 0.6


@pytest.mark.parametrize(
    "completions",
    [
        (ANSWER,),
        (SEARCH, ANSWER),
        (SEARCH, SEARCH, ANSWER),
        ("  \n<think></think><answer></answer>",),
        ("<think>a < b,\n</b> and <THINK></think>\n\n<answer>\nx\n</answer>",),
    ],
)
def test_well_formed(completions: tuple[str, ...]) -> None:
    assert is_well_formed(outcome(*completions))


@pytest.mark.parametrize(
    "completions",
    [
        (),
        ("",),
        (SEARCH,),  # no answer
        (SEARCH, SEARCH),
        (ANSWER, SEARCH),
        ("<answer> x </answer>",),  # no thought
        (SEARCH, "<answer> x </answer>"),  # no thought on what was found
        ("So <think> a </think> <answer> x </answer>",),
        ("<think> a </think> so <answer> x </answer>",),
        ("<think> a </think> <answer> x </answer> so",),
        ("<think> a <think> b </think> <answer> x </answer>",),
        ("<think> a </think> <think> b </think> <answer> x </answer>",),
        ("<think> a </think> <information> b </information> <answer> x </answer>",),
        ("<think> <search> a </think> <answer> x </answer>",),
        ("<think> a </think> <answer> <think> x </answer>",),
        ("<think> a <answer> x </answer>",),
        ("<think> a </think> <answer> x </search>",),
        ("<think> a </think>", ANSWER),  # a turn without an action
    ],
)
def test_ill_formed(completions: tuple[str, ...]) -> None:
    assert not is_well_formed(outcome(*completions))


def test_the_outcome_of_a_rollout() -> None:
    got = outcome_of(QUESTION, rolled_out(SEARCH, ANSWER))
    assert (got.question, got.golden_answers, got.answer) == (QUESTION.question, QUESTION.golden_answers, "Bamako")
    assert got.status is Status.COMPLETED
    assert got.completions == (SEARCH, ANSWER)
    assert [segment.kind for segment in got.segments] == ["prompt", "completion", "observation", "completion"]
    assert format_reward_v0_3(got) == 1


def test_a_retry_makes_it_ill_formed() -> None:
    got = outcome_of(QUESTION, rolled_out("<think> Hm. </think>", ANSWER))
    assert got.completions == ("<think> Hm. </think>", ANSWER)
    assert format_reward_v0_3(got) == 0.8


def test_an_answer_past_the_cut_is_none() -> None:
    num_tokens = len(rolled_out(SEARCH, ANSWER).ids) - 1
    whole = outcome_of(QUESTION, rolled_out(SEARCH, ANSWER, max_trajectory_tokens=num_tokens))
    assert (whole.answer, whole.completions) == ("Bamako", (SEARCH, ANSWER))
    cut = outcome_of(QUESTION, rolled_out(SEARCH, ANSWER, max_trajectory_tokens=num_tokens - 1))
    assert cut.answer is None
    assert cut.completions == (SEARCH,)
    assert exact_match_reward(cut) == 0
    assert format_reward_v0_3(cut) == 0.1
    assert outcome_of(QUESTION, rolled_out(SEARCH, ANSWER, max_trajectory_tokens=1)).completions == ()


def test_a_rollout_that_gave_no_answer() -> None:
    exhausted = outcome_of(QUESTION, rolled_out("a", "b", "c"))
    assert (exhausted.answer, exhausted.status) == (None, Status.EXHAUSTED)
    failed = rolled_out(SEARCH)
    failed.stop(Status.FAILED)
    assert outcome_of(QUESTION, failed).status is Status.FAILED
    with pytest.raises(ValueError, match="open"):
        outcome_of(QUESTION, rolled_out(SEARCH))


def test_the_registered_rewards_are_found_by_name() -> None:
    assert reward_named("exact_match") is exact_match_reward
    assert reward_named("sub_em") is sub_em_reward
    assert reward_named("format_v0_3") is format_reward_v0_3
    assert reward_named("random") is random_reward


def test_a_reward_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewards, "REWARDS", rewards.REWARDS.copy())

    @register("short")
    def short(outcome: Outcome) -> float:
        return 1.0 / (1 + len(outcome.completions))

    assert reward_named("short") is short
    assert reward_named("short")(outcome(ANSWER)) == 0.5
    assert register("short")(short) is short
    with pytest.raises(ValueError, match="two rewards are called 'short'"):
        register("short")(exact_match_reward)
    with pytest.raises(ValueError, match="colon"):
        register("a:b")


def test_a_reward_by_its_import_path(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("my_rewards")
    module.short = exact_match_reward  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_rewards", module)
    assert reward_named("my_rewards:short") is exact_match_reward
    for name, complaint in {
        "my_rewards:missing": "missing",
        "my_rewards:number": "no function",
        "no_such_module_here:f": "no_such_module_here",
        ":f": "can't be imported",
        ".relative:f": "can't be imported",
    }.items():
        with pytest.raises(ConfigurationError, match=complaint):
            reward_named(name)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    known = ", ".join(rewards.REWARDS.all())
    with pytest.raises(ConfigurationError, match=f"no reward 'em'; there are {known}, or name a module:function"):
        reward_named("em")
