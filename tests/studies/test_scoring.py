"""What checkpoints are scored by: searches, passages and bounds of their arms; one that fails does not end the rest."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from loadtests.seven.questions import Asked
from loadtests.studies import __main__ as command
from loadtests.studies.commands import Choices
from loadtests.studies.plan import STUDIES, Run, runs_of, world_named
from loadtests.studies.running import DONE, Done
from loadtests.studies.scoring import Exam, Pass, is_scored, passes, read_scores, score, settings_of, start_named
from searchr1.data.questions import Question
from tests.support.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
ASKED = Question("q0", "Where is Klow?", ("Syldavia",), 1, None, "nq")


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def exam_in(world: str) -> Exam:
    return Exam(world_named(world), (Asked(ASKED, cluster="Klow"),), "none", 1, progress=False)


def done_runs(out: Path, study: str) -> dict[str, Run]:
    """Return the first runs of a study, by their arms, all of them done."""
    runs = {run.arm.label: run for run in runs_of(next(one for one in STUDIES if one.name == study), 1)}
    for run in runs.values():
        run.folder(out).mkdir(parents=True)
        (run.folder(out) / DONE).write_text(json.dumps(asdict(Done("python train", 0, 0.0, 1.0))))
    return runs


def test_what_was_trained_without_search_is_scored_without(tmp_path: Path) -> None:
    choices, world = Choices(out=tmp_path), world_named("realqa")
    table = list(done_runs(tmp_path, "table-realqa").values())
    controls = list(done_runs(tmp_path / "controls", "controls-realqa-form").values())

    def searches(start: str, runs: list[Run], choices: Choices) -> list[object]:
        return [one.options.get("max_searches") for one in passes(world, start, runs, choices)]

    # The start comes first: what was fine-tuned without search is asked without.
    assert searches("closed", table, choices) == [0, 0]
    assert searches("base", table, choices) == [None, 0]
    assert searches("form", table, choices) == [None, None, None, None]
    without = [run for run in controls if run.arm.slug == "nosearch"]
    assert searches("form", without, replace(choices, out=tmp_path / "controls")) == [None, 0]


def test_arms_with_more_passages_are_scored_within_their_bounds(tmp_path: Path) -> None:
    choices, world = Choices(out=tmp_path), world_named("realqa")
    runs = list(done_runs(tmp_path, "top-k-realqa").values())
    found: dict[tuple[int | None, int, int], list[str]] = {}
    for start in ("form", "form-top1", "form-top5"):
        for one in passes(world, start, runs, choices):
            limits = settings_of(exam_in("realqa"), start, one.arm, choices).limits()
            bounds = (limits.max_observation_tokens, limits.max_context_tokens)
            found.setdefault((one.options["top_k"], *bounds), []).append(one.name)
    assert found == {
        (3, 800, 3072): ["realqa-form-start", "realqa-form-grpo-seed0"],
        (1, 800, 3072): ["realqa-form-top1-start-top1", "realqa-form-top1-grpo-top1-seed0"],
        (5, 850, 3222): ["realqa-form-top5-start-top5", "realqa-form-top5-grpo-top5-seed0"],
    }


@pytest.mark.torch
async def test_a_checkpoint_that_fails_does_not_end_the_scoring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHR1_ENGINE", "transformers")
    config = tmp_path / "run.yaml"
    config.write_text("rollout: {max_turns: 1, max_completion_tokens: 8}")
    choices = Choices(
        out=tmp_path / "out",
        configs={"atlas-grpo": str(config)},
        starts={"weak": str(write_tiny_model(tmp_path / "model"))},
    )
    runs = done_runs(choices.out, "controls-atlas-weak")
    broken, good = runs["GRPO"], runs["RL without search"]
    write_tiny_model(good.folder(choices.out) / "checkpoint")
    exam, told = exam_in("atlas"), list[str]()
    assert not await score(exam, "weak", [broken, good], choices, told.append)
    assert told[0] == "atlas, weak: 0 scored before, 3 to score"
    assert [line.split(": ")[:2] for line in told[1:]] == [[broken.name, "not scored"]]
    names = [start_named("atlas", "weak", 3), broken.name, good.name]
    assert [len(read_scores(choices.out, name)) for name in names] == [1, 0, 1]

    # What has its records is told by their options, not by the weights alone.
    one = Pass(good.name, good.folder(choices.out) / "checkpoint", good.arm)
    assert is_scored(exam, choices.out, one)
    assert not is_scored(exam, choices.out, replace(one, arm=replace(good.arm, max_searches=None)))
    assert not is_scored(exam, choices.out, replace(one, arm=replace(good.arm, top_k=5)))


@pytest.mark.process
def test_the_command_fails_where_a_start_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done_runs(tmp_path, "top-k-realqa")
    words = ["score", str(tmp_path), "--world", "realqa", "--questions", "missing", "--retriever", "none"]
    monkeypatch.setattr(sys, "argv", ["studies", *words])
    # Each start has a process of its own, in which the questions can't be read.
    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 1

    async def failing(*_: object) -> bool:
        return False

    monkeypatch.setattr(command, "exam_of", lambda *_: exam_in("realqa"))
    monkeypatch.setattr(command, "score", failing)
    monkeypatch.setattr(sys, "argv", ["studies", *words, "--of", "form"])
    with pytest.raises(SystemExit, match="some were not scored"):
        command.main()
