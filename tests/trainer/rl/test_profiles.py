"""Training a policy of another family: the setting, its rollouts and the form that its reward asks for."""

from pathlib import Path

import pytest

from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import ConfigurationError
from searchr1.evaluation.datasets import Question
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.types import Passage, Segment, Status
from searchr1.retrieval.fake import FakeRetriever
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.config import load_config
from searchr1.trainer.rl.rewards import Outcome, is_well_formed, outcome_of
from searchr1.trainer.rl.rollouts import RolloutOptions, roll_out
from tests.trainer.rl.test_config import LEAST, written

QUESTION = Question("1", "What is the capital of Mali?", ("Bamako",))
MALI = Passage("1", '"Mali"', "Its capital is Bamako.")
SEARCH = "<think> Where? </think> <search> Mali </search>"
ANSWER = "<think> I see. </think> <answer> It is \\boxed{Bamako} </answer>"
O1_SEARCH = "Where?\n<|begin_search_query|> Mali <|end_search_query|>"
O1_ANSWER = "I see. It is \\boxed{Bamako}."


def test_the_setting_is_checked_and_the_default_changes_no_run_that_is_to_be_resumed(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST)
    assert load_config(path).profile == "search-r1"
    assert "profile" not in load_config(path).model_dump(mode="json")
    assert load_config(path, {"profile": "research"}).model_dump(mode="json")["profile"] == "research"
    with pytest.raises(ConfigurationError, match=r"run\.yaml: profile: there is no profile 'x'; there are "):
        load_config(path, {"profile": "x"})


async def test_rollouts_run_with_the_profile(tokenizer: Tokenizer) -> None:
    engine = ScriptedEngine([SEARCH, ANSWER], encode=tokenizer.encode)
    profile = profile_named("research-base")
    options = RolloutOptions(profile=profile)
    [trial] = await roll_out([QUESTION], engine, FakeRetriever({"Mali": (MALI,)}), tokenizer, options)
    assert (trial.rollout.status, trial.rollout.answer) == (Status.COMPLETED, "Bamako")
    assert trial.rollout.segments[0].text == profile.prompt(QUESTION.question)
    assert trial.rollout.segments[2].text == profile.observation([MALI])
    outcome = outcome_of(QUESTION, trial.rollout)
    assert outcome.profile is profile
    assert is_well_formed(outcome)


@pytest.mark.parametrize(
    ("name", "completions", "well_formed"),
    [
        ("research", (SEARCH, ANSWER), True),
        ("research", (SEARCH,), False),
        ("research", ("<think> a </think> <answer> Bamako </answer>",), False),
        ("research", ("<think> a <result> </think> <answer> \\boxed{b} </answer>",), False),
        ("research", ("<think> a <information> </think> <answer> \\boxed{b} </answer>",), True),
        ("search-r1", (SEARCH, ANSWER), True),
        ("search-r1", ("<think> a <information> </think> <answer> b </answer>",), False),
        ("search-o1", (O1_SEARCH, O1_ANSWER), True),
        ("search-o1", (O1_ANSWER,), True),
        ("search-o1", (O1_SEARCH, "I see. It is Bamako."), False),
        ("search-o1", (O1_ANSWER, O1_SEARCH), False),
        ("search-o1", ("<|begin_search_result|> " + O1_ANSWER,), False),
        ("search-o1", ("a <|begin_search_query|> " + O1_SEARCH, O1_ANSWER), False),
    ],
)
def test_the_form_of_each_profile(name: str, completions: tuple[str, ...], well_formed: bool) -> None:
    segments = tuple(Segment("completion", turn, text, (1,), True) for turn, text in enumerate(completions, start=1))
    outcome = Outcome("q", ("Bamako",), "Bamako", Status.COMPLETED, segments, profile_named(name))
    assert is_well_formed(outcome) is well_formed
