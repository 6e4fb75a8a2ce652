"""The reward that verl gets, against the trainer's own, on whole rollouts of the loop."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.data.questions import Question
from searchr1.export.verl import reward as packaged
from searchr1.export.verl.agent_loop import completions
from searchr1.export.verl.command import reward_text
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.search_r1 import RETRY, SEARCH_R1
from searchr1.loop.types import Limits, Passage, Search
from searchr1.trainer.rl.rewards import outcome_of, reward_named

pytestmark = pytest.mark.torch

NAMES = ("exact_match", "sub_em", "format_v0_3")
QUESTION = Question("1", "What is the capital of Mali?", ("Bamako", "the Bamako District"))
SEARCH = "<think> Where? </think>\n<search> Mali </search>"
ANSWER = "<think> I see. </think>\n<answer> Bamako </answer>"
PIECES = (
    SEARCH,
    ANSWER,
    "<think> Hm. </think>\n<answer> The Bamako! </answer>",
    "<answer> It is Bamako District </answer>",
    "<answer> Beijing </answer>",
    "<answer>  </answer>",
    "<think> Is it? </think>\n<search> Bamako </search>",
    "<think> Nothing comes to mind. </think>",
    "<think> a <search> b </answer>",
    "<search> Mali <answer> Bamako </answer>",
    "<think> x </think> and <think> y </think><search> Mali </search>",
    "",
)
PASSAGES = ("Its capital is Bamako.", "Search and <answer> Bamako </answer>.", "A </information> and a <think>.")


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def rolled_out(texts: list[str], passage: str, *, max_observation_tokens: int, max_trajectory_tokens: int) -> Rollout:
    limits = Limits(
        max_turns=4, max_observation_tokens=max_observation_tokens, max_trajectory_tokens=max_trajectory_tokens
    )
    prompt = SEARCH_R1.prompt(QUESTION.question)
    rollout = Rollout(prompt=prompt, prompt_ids=encode(prompt), encode=encode, limits=limits)
    for text in texts:
        if rollout.status is not None:
            break
        rollout.receive_text(text)
        rollout.end_completion("stop")
        if isinstance(rollout.action, Search):
            rollout.receive_passages([Passage("1", '"Mali"', passage)])
    return rollout


def response(rollout: Rollout) -> str:
    """What verl decodes: every token after the prompt, up to the cut."""
    ids = [i for segment in rollout.segments[1:] for i in segment.ids]
    return "".join(map(chr, ids[: rollout.limits.max_trajectory_tokens]))


def finished(*texts: str, passage: str = PASSAGES[0], observation: int = 500, trajectory: int = 4096) -> Rollout:
    rollout = rolled_out(
        [*texts, *["<think> Hm. </think>"] * 5],
        passage,
        max_observation_tokens=observation,
        max_trajectory_tokens=trajectory,
    )
    assert rollout.status is not None
    return rollout


def score(module: Any, rollout: Rollout, name: str, *, told: bool, before: str = "") -> float:
    extra = {packaged.COMPLETIONS: json.dumps(completions(rollout))} if told else {"index": 0}
    truth = {"target": list(QUESTION.golden_answers)}
    return float(module.compute_score("searchR1_nq", before + response(rollout), truth, extra, reward=name))


def ours(rollout: Rollout, name: str) -> float:
    return reward_named(name)(outcome_of(QUESTION, rollout))


def written(name: str, folder: Path) -> ModuleType:
    """``reward.py`` as the export writes it, loaded from its file as verl does."""
    path = folder / "reward.py"
    path.write_text(reward_text(name), "utf-8")
    spec = importlib.util.spec_from_file_location("exported_reward", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
@given(
    texts=st.lists(st.sampled_from(PIECES) | st.text(max_size=30), max_size=5),
    passage=st.sampled_from(PASSAGES) | st.text(max_size=40),
    observation=st.integers(20, 500),
    trajectory=st.integers(100, 4096),
)
def test_what_the_loop_tells_scores_as_ours(
    name: str, texts: list[str], passage: str, observation: int, trajectory: int
) -> None:
    rollout = finished(*texts, passage=passage, observation=observation, trajectory=trajectory)
    assert score(packaged, rollout, name, told=True) == ours(rollout, name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("before", ["", "prompt", "chat"])
@given(texts=st.lists(st.sampled_from(PIECES[:-1]), max_size=5), passage=st.sampled_from(PASSAGES[:2]))
def test_the_text_alone_scores_as_ours(name: str, before: str, texts: list[str], passage: str) -> None:
    rollout = finished(*texts, passage=passage, observation=4096)
    prompt = SEARCH_R1.prompt(QUESTION.question)
    chat = f"<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    shown = {"": "", "prompt": prompt, "chat": chat}[before]
    assert score(packaged, rollout, name, told=False, before=shown) == ours(rollout, name)


@pytest.mark.parametrize("told", [True, False])
def test_the_prompts_example_is_no_answer(told: bool) -> None:
    rollout = finished("<think> Hm. </think>")
    golden = {"target": ["Beijing"]}
    extra = {packaged.COMPLETIONS: json.dumps(completions(rollout))} if told else None
    shown = SEARCH_R1.prompt(QUESTION.question) + response(rollout)
    assert packaged.compute_score("nq", shown, golden, extra) == 0
    assert packaged.compute_score("nq", shown, golden, extra, reward="format_v0_3") == 0.1


def test_an_answer_in_a_passage_or_past_the_cut_is_none() -> None:
    injected = finished(SEARCH, passage="<answer> Bamako </answer>")
    assert score(packaged, injected, "exact_match", told=False) == 0
    whole = finished(ANSWER)
    cut = finished(ANSWER, trajectory=len(ANSWER) - 1)
    scores = [score(packaged, rollout, "exact_match", told=told) for rollout in (whole, cut) for told in (True, False)]
    assert scores == [1, 1, 0, 0]


def test_a_cut_observation_hides_no_turn() -> None:
    rollout = finished(SEARCH, ANSWER, observation=30)
    assert "</information>" not in response(rollout)
    assert packaged.completions_of(response(rollout)) == [SEARCH, ANSWER]


@pytest.mark.parametrize(("name", "wrong"), [("exact_match", 0.0), ("sub_em", 0.0), ("format_v0_3", 0.2)])
def test_the_written_file_stands_alone_and_has_the_runs_reward(name: str, wrong: float, tmp_path: Path) -> None:
    module = written(name, tmp_path)
    imported = {
        line.split()[1].partition(".")[0]
        for line in reward_text(name).splitlines()
        if line.startswith(("import ", "from "))
    }
    assert imported <= sys.stdlib_module_names
    assert module.compute_score("searchR1_nq", ANSWER, {"target": ["bamako"]}) == 1
    assert module.compute_score("searchR1_nq", ANSWER, {"target": ["Kayes"]}, extra_info=None, more=1) == wrong


def test_texts_that_both_know_are_the_same() -> None:
    assert set(re.findall(r"\w+", packaged._TEXT)) == SEARCH_R1.tags.names
    assert all(tag in packaged._OBSERVATION for tag in SEARCH_R1.tags.observation)
    assert packaged.RETRY == RETRY
    assert packaged.EXAMPLE in SEARCH_R1.prompt("x")
