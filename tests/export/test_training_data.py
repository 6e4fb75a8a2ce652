"""What users asked becomes training data: from a server's record, through an export, to questions with answers."""

from pathlib import Path

import pytest

from searchr1.data.prepare import PrepareConfig, prepare
from searchr1.errors import DatasetError
from searchr1.evaluation.datasets import load_questions
from searchr1.export.run import ExportConfig, export
from tests.data.files import write_lines as write_golden
from tests.export.records import QUESTION, run_json, write_lines

FOLLOW_UP = "Earlier: which currency is used in Mali? The CFA franc. Now: and in Chad"


def exported(folder: Path, name: str, golden: Path | None = None) -> Path:
    followed_up = run_json("run_2", question="And in Chad", status="exhausted", answer=None)
    followed_up["trajectory"]["question"] = FOLLOW_UP
    runs = [run_json("run_1"), followed_up]
    source = write_lines(folder / "served.jsonl", runs)
    output = folder / name
    export(ExportConfig(output=output, url="http://127.0.0.1:9", input=source, golden=golden), progress=False)
    return output


@pytest.mark.parametrize("runs", ["runs.jsonl", "runs.parquet"])
@pytest.mark.parametrize("output", ["train.parquet", "train.jsonl"])
def test_exported_runs_are_questions_to_train_on(tmp_path: Path, runs: str, output: str) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", {"question": QUESTION, "golden_answers": ["CFA franc", "XOF"]})
    source = exported(tmp_path, runs)
    config = PrepareConfig((str(source),), tmp_path / output, golden=golden)
    report = prepare(config, progress=False)
    assert (report.by_source, report.skipped) == ({"searchr1": 1}, {"without golden answers": 1})
    (question,) = load_questions(str(tmp_path / output), split="train")
    assert question.id == "searchr1/run_1"
    assert question.question.rstrip("?") == QUESTION
    assert question.golden_answers == ("CFA franc", "XOF")


@pytest.mark.parametrize("runs", ["runs.jsonl", "runs.parquet"])
def test_a_follow_up_is_asked_with_what_came_before_it(tmp_path: Path, runs: str) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", {"question": FOLLOW_UP, "golden_answers": ["CFA franc"]})
    config = PrepareConfig((str(exported(tmp_path, runs)),), tmp_path / "train.jsonl", golden=golden)
    prepare(config, progress=False)
    (question,) = load_questions(str(tmp_path / "train.jsonl"), split="train")
    assert question.question.rstrip("?") == FOLLOW_UP


def test_answers_given_at_the_export_are_enough(tmp_path: Path) -> None:
    golden = write_golden(tmp_path / "golden.jsonl", {"question": QUESTION, "golden_answers": ["CFA franc"]})
    source = exported(tmp_path, "runs.parquet", golden)
    report = prepare(PrepareConfig((str(source),), tmp_path / "train.parquet"), progress=False)
    assert report.num_questions == 1


def test_runs_without_known_answers_are_no_training_data(tmp_path: Path) -> None:
    source = exported(tmp_path, "runs.jsonl")
    with pytest.raises(DatasetError, match="2 without golden answers"):
        prepare(PrepareConfig((str(source),), tmp_path / "train.parquet"), progress=False)
