"""The rollouts that a run keeps: records that all readers of runs read, within bounds, gone when taken back."""

import json
import math
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from searchr1.data.questions import Question
from searchr1.data.readers import read
from searchr1.data.sources import SourceFile
from searchr1.engines.scripted import ScriptedEngine, Step
from searchr1.errors import EngineError
from searchr1.export.files import read_runs
from searchr1.export.run import ExportConfig, check_record, export
from searchr1.export.schema import record_schema
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.rl.kept_rollouts import Judged, KeptRollouts, Phase
from searchr1.trainer.rl.rollouts import RolloutOptions, RolloutResult, roll_out
from tests.trainer.rl.test_rollouts import ANSWER, FOUND, SEARCH

WRONG = "<answer> Gao </answer>"
GONE: list[str | Step] = ["<think>", EngineError("gone")]
QUESTION = Question("nq/1", "What is the capital of Mali", ("Bamako",), 2, "capital", "nq")


async def rolled_out(tokenizer: Tokenizer, script: list[Any], group_size: int) -> list[RolloutResult]:
    engine = ScriptedEngine(script, encode=tokenizer.encode)
    options = RolloutOptions(group_size=group_size, max_concurrent=1)
    return await roll_out([QUESTION], engine, FOUND, tokenizer, options)


@pytest.fixture
async def judged(tokenizer: Tokenizer) -> list[Judged]:
    """A right rollout with a search, a wrong one, and one that the engine failed."""
    right, wrong, failed = await rolled_out(tokenizer, [SEARCH, ANSWER, WRONG, GONE], 3)
    return [Judged(right, 1.0), Judged(wrong, 0.25), Judged(failed)]


def kept(folder: Path, *, num_each: int | None = None, max_bytes: int | None = None) -> KeptRollouts:
    return KeptRollouts(folder / "run", model="m", num_each=num_each, max_bytes=max_bytes, seed=0)


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "rollouts" / name).read_text("utf-8").splitlines()]


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "run" / "rollouts").iterdir())


async def test_a_line_is_a_runs_record_with_what_training_knows(tmp_path: Path, judged: list[Judged]) -> None:
    kept(tmp_path).write("step", 12, judged, policy_version=11)
    lines = rows(tmp_path, "step-000012.jsonl")
    for line in lines:
        jsonschema_rs.validate(record_schema(), line)
    for run in read_runs(tmp_path / "run" / "rollouts" / "step-000012.jsonl"):
        check_record(run)
    assert [(line["answer"], line["exact_match"], line["reward"], line["status"]) for line in lines] == [
        ("Bamako", True, 1.0, "completed"),
        ("Gao", False, 0.25, "completed"),
        (None, False, None, "failed"),
    ]
    first, _, failed = lines
    about = ("question_id", "golden_answers", "data_source", "hops", "kind", "phase", "step", "group")
    assert [first[name] for name in about] == ["nq/1", ["Bamako"], "nq", 2, "capital", "step", 12, 0]
    trajectory = first["trajectory"]
    assert trajectory["policy_version"] == "11"
    assert [segment["kind"] for segment in trajectory["segments"]] == [
        "prompt",
        "completion",
        "observation",
        "completion",
    ]
    assert trajectory["searches"][0]["passages"][0]["text"] == "Its capital is Bamako."
    assert first["usage"]["searches"] == 1
    assert first["usage"]["observation_tokens"] == len(trajectory["segments"][2]["token_ids"])
    assert failed["error"] == {"code": "engine_error", "message": "gone"}
    assert len({line["id"] for line in lines}) == 3


async def test_logprobs_that_json_has_no_word_for_are_left_out(tmp_path: Path, judged: list[Judged]) -> None:
    segments = judged[0].result.rollout.segments
    object.__setattr__(segments[1], "logprobs", (math.nan,) * len(segments[1].sampled_ids))
    kept(tmp_path).write("step", 1, judged[:1], policy_version=0)
    [line] = rows(tmp_path, "step-000001.jsonl")
    logprobs = [segment["logprobs"] for segment in line["trajectory"]["segments"] if segment["kind"] == "completion"]
    assert logprobs[0] is None
    assert logprobs[1]


async def test_they_are_questions_and_exports_too(tmp_path: Path, judged: list[Judged]) -> None:
    kept(tmp_path).write("step", 12, judged, policy_version=11)
    path = tmp_path / "run" / "rollouts" / "step-000012.jsonl"
    questions = [question for _, question in read(SourceFile(path))]
    assert [question.golden_answers for question in questions] == [("Bamako",)] * 3
    report = export(
        ExportConfig(tmp_path / "right.jsonl", "http://127.0.0.1:9", input=path, correct=True), progress=False
    )
    assert str(report).endswith(": 1 run; skipped: 2 wrong")
    assert [run.answer for run in read_runs(tmp_path / "right.jsonl")] == ["Bamako"]


@pytest.mark.parametrize("phase", ["step", "evaluation"])
async def test_of_steps_some_are_drawn_and_evaluations_are_whole(
    tmp_path: Path, judged: list[Judged], phase: Phase
) -> None:
    keeping = kept(tmp_path, num_each=2)
    chosen = set()
    for step in range(1, 9):
        keeping.write(phase, step, judged, policy_version=step)
        chosen.add(tuple(line["answer"] for line in rows(tmp_path, f"{phase}-{step:06d}.jsonl")))
    assert {len(answers) for answers in chosen} == {2 if phase == "step" else 3}
    assert len(chosen) > 1 or phase == "evaluation"


async def test_the_oldest_files_go_and_those_of_evaluations_last(tmp_path: Path, judged: list[Judged]) -> None:
    kept(tmp_path).write("step", 1, judged[:1], policy_version=0)
    size = (tmp_path / "run" / "rollouts" / "step-000001.jsonl").stat().st_size
    keeping = kept(tmp_path, max_bytes=round(3.5 * size))
    phases: list[tuple[Phase, int]] = [("evaluation", 0), ("step", 2), ("step", 3), ("evaluation", 3)]
    for phase, step in phases:
        keeping.write(phase, step, judged[:1], policy_version=0)
    assert files(tmp_path) == ["evaluation-000000.jsonl", "evaluation-000003.jsonl", "step-000003.jsonl"]
    kept(tmp_path, max_bytes=1).write("evaluation", 4, judged[:1], policy_version=4)
    assert files(tmp_path) == ["evaluation-000004.jsonl"]


@pytest.mark.parametrize("bounds", [{"num_each": 0}, {"max_bytes": 0}])
async def test_none_are_kept_where_none_are_wanted(
    tmp_path: Path, judged: list[Judged], bounds: dict[str, int]
) -> None:
    kept(tmp_path, **bounds).write("step", 1, judged, policy_version=0)
    assert not (tmp_path / "run").exists()


async def test_files_of_steps_that_are_taken_again_go(tmp_path: Path, judged: list[Judged]) -> None:
    keeping = kept(tmp_path)
    for step in (0, 2, 3):
        keeping.write("evaluation", step, judged, policy_version=step)
    keeping.write("step", 3, judged, policy_version=2)
    (tmp_path / "run" / "rollouts" / "notes.txt").write_text("mine")
    keeping.rewind(2)
    assert files(tmp_path) == ["evaluation-000000.jsonl", "evaluation-000002.jsonl", "notes.txt"]
    assert keeping.has("evaluation", 2)
    assert not keeping.has("step", 3)
    kept(tmp_path / "none").rewind(0)
