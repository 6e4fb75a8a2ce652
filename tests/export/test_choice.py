"""Runs that answered rightly: what rejection sampling trains on."""

import json
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import ConfigurationError, DatasetError
from searchr1.export.files import read_runs
from searchr1.export.run import ExportConfig, ExportReport, export
from tests.data.files import write_lines as write_golden
from tests.export.records import QUESTION, run_json, write_lines

NOWHERE = "http://127.0.0.1:9"
RUNS = [
    run_json("run_1", answer="The CFA Franc."),
    run_json("run_2", answer="Euro"),
    run_json("run_3"),
    run_json("run_4", status="failed"),
    run_json("run_5", answer=None, status="exhausted"),
    run_json("run_6"),
]


def chosen(folder: Path, runs: list[Any], **more: Any) -> tuple[ExportReport, list[str]]:
    source, output = write_lines(folder / "runs.jsonl", runs), folder / "right.jsonl"
    report = export(ExportConfig(output, NOWHERE, input=source, correct=True, **more), progress=False)
    return report, [run.id for run in read_runs(output)]


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    return write_golden(tmp_path / "golden.jsonl", {"question": QUESTION, "golden_answers": ["CFA franc", "XOF"]})


def test_right_runs_alone_are_exported(tmp_path: Path, golden: Path) -> None:
    report, ids = chosen(tmp_path, RUNS, golden=golden)
    assert ids == ["run_1", "run_3", "run_6"]
    assert report.skipped == "3 wrong"


def test_so_many_of_each_question(tmp_path: Path, golden: Path) -> None:
    other = run_json("run_7")
    other["trajectory"]["question"] = "Another one?"
    golden.write_text(golden.read_text() + json.dumps({"question": "Another one", "golden_answers": ["CFA franc"]}))
    report, ids = chosen(tmp_path, [*RUNS, other], golden=golden, each=1)
    assert ids == ["run_1", "run_7"]
    assert report.skipped == "3 wrong, 2 right, beyond --each"


def test_runs_may_know_their_answers_themselves(tmp_path: Path) -> None:
    _, ids = chosen(tmp_path, [run | {"golden_answers": ["Euro"]} for run in RUNS])
    assert ids == ["run_2"]


def test_runs_that_know_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"runs\.jsonl, line 1: the question has no golden answers"):
        chosen(tmp_path, [run | {"object": "research.run"} for run in RUNS])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"correct": True}, "--correct needs --golden"),
        ({"each": 2, "input": Path("runs.jsonl")}, "give --correct"),
        ({"golden": Path("golden.jsonl")}, "or with --correct"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        export(ExportConfig(tmp_path / "out.jsonl", NOWHERE, **options), progress=False)
