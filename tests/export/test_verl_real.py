"""``scripts/check-verl``: exports in real verl, where it is installed; a fault is seen, and its cases are sound."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtests.verl.cases import BOUNDS, CASES, REWARD, Case, case_asked_in
from loadtests.verl.expected import RETRY, Expected, expected, kept, observation
from loadtests.verl.findings import Findings
from searchr1.export.verl.reward import COMPLETIONS, compute_score
from searchr1.export.verl.settings import VERL_VERSION
from searchr1.loop.profiles import search_r1
from searchr1.loop.types import Passage

ROOT = Path(__file__).parents[2]
VERL = ROOT / ".venv-verl"
TIMEOUT_S = 2400
"""It computes for a minute, and waits for a quarter of an hour on a crowded machine."""
CUT = "an answer past the end"
"""The case whose reward follows from where verl's tokenizer has the trajectory end."""


def check(python: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtests.verl", "--python", str(python)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.timeout(TIMEOUT_S + 60)
def test_verl_runs_an_export() -> None:
    if not (VERL / ".setup").exists():
        pytest.skip("needs scripts/check-verl to have set itself up")
    done = check(VERL / "bin" / "python3")
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-10_000:]
    # Groups of five in training, by the worker of verl's newer trainer; one each otherwise.
    assert f"verl {VERL_VERSION}: 3 configurations, {len(CASES) * (5 + 1 + 1 + 1)} trajectories" in done.stdout
    assert ", 0 faults" in done.stdout


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(("fails_at", "code"), [("verl.trainer.main_ppo", 1), ("loadtests.verl.inside", 3)])
def test_a_failure_of_verl_is_told(tmp_path: Path, fails_at: str, code: int) -> None:
    """With a Python in verl's place that fails at composing, or at the check itself."""
    program = tmp_path / "python3"
    fails = f'if [ "$2" = {fails_at} ]; then echo no such thing >&2; exit 3; fi'
    program.write_text(f'#!/bin/sh\n{fails}\necho "trainer: {{}}"\n')
    program.chmod(0o755)
    done = check(program)
    assert done.returncode == code, done.stderr
    assert "no such thing" in done.stderr


def characters(text: str) -> list[int]:
    return [ord(character) for character in text]


def two(_: str) -> list[tuple[str, str]]:
    return [('"Mali"', "Its capital is Bamako."), ('"Fiji"', "Its capital is Suva.")]


def of(name: str) -> Expected:
    case = next(case for case in CASES if case.name == name)
    return expected(case, characters, two, max_turns=BOUNDS["rollout.max_turns"], max_observation_tokens=10_000)


def test_what_is_put_in_is_the_formats() -> None:
    assert RETRY == search_r1.RETRY
    passages = [Passage("1", title, text) for title, text in two("")]
    assert observation(two("")) == search_r1.observation(passages)


def test_an_expected_trajectory_by_hand() -> None:
    whole = of("a search")
    first, last = (text for text, _ in whole.completions)
    between = observation(two(""))
    assert "".join(map(chr, whole.ids)) == first + between + last
    assert whole.mask == [1] * len(first) + [0] * len(between) + [1] * len(last)
    assert [logprob != 0 for logprob in whole.logprobs] == list(map(bool, whole.mask))
    assert len(set(whole.logprobs)) == len(first) + len(last) + 1
    cut = whole.cut(len(whole.ids) - 1)
    assert cut.ids == whole.ids[:-1]
    assert [text for text, _ in cut.completions] == [first]


def test_text_after_a_tag_is_not_kept() -> None:
    assert kept("<search> a </search> b </answer> c") == "<search> a </search>"
    assert kept("<answer> a </answer> b") == "<answer> a </answer>"
    assert kept("neither") == "neither"
    assert [text[-9:] for text, _ in of("text after the tags").completions] == ["</search>", "</answer>"]


def test_the_last_turn_searches_no_more() -> None:
    whole = of("searches alone")
    assert len(whole.completions) == BOUNDS["rollout.max_turns"] + 1
    assert whole.completions[-1][1] == len(whole.ids)


@pytest.mark.parametrize("case", [case for case in CASES if case.name != CUT], ids=lambda case: case.name)
def test_a_case_has_the_reward_that_is_written(case: Case) -> None:
    told = json.dumps([text for text, _ in of(case.name).completions])
    truth = {"target": list(case.golden_answers)}
    assert compute_score("nq", "", truth, {COMPLETIONS: told}, REWARD) == case.reward


def test_cases_tell_every_reward_and_every_question_apart() -> None:
    assert {case.reward for case in CASES} == {1.0, 0.8, 0.2, 0.1}
    for case in CASES:
        assert case_asked_in(search_r1.SEARCH_R1.prompt(case.question)) is case


def test_a_difference_is_a_fault() -> None:
    findings = Findings()
    findings.same("ids", [1, 2], [1, 2])
    findings.same("mask", [1, 0], [1, 1])
    assert findings.num_compared == 2
    assert findings.faults == ["mask: [1, 0], where it has to be [1, 1]"]
