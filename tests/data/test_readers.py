"""Reading rows: what is taken of each format, and how a bad row is named."""

from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from searchr1.data import readers
from searchr1.data.questions import Question
from searchr1.data.readers import num_rows, read
from searchr1.data.sources import SourceFile
from searchr1.errors import DatasetError
from searchr1.export.run import ExportConfig, export
from tests.data.files import flashrag, seven_sets, upstream, write_lines, write_parquet
from tests.export.records import a_run


def questions(path: Path, **file: Any) -> list[Question]:
    return [question for _, question in read(SourceFile(path, **file))]


def test_flashrag_lines(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "test.jsonl", flashrag(0, "nq", "test"))
    golden = ("nq answer 0", "other")
    assert questions(path, data_source="nq") == [Question("test_0", "nq test question 0", golden, data_source="nq")]


def test_upstream_rows_over_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "ROWS_PER_BATCH", 4)
    path = seven_sets(tmp_path / "test.parquet", num_each=3)
    found = list(read(SourceFile(path)))
    assert len(found) == num_rows(path) == 21
    assert [where for where, _ in found][::10] == [f"{path}, row {number}" for number in (1, 11, 21)]
    golden = ("bamboogle answer 2", "other")
    assert found[-1][1] == Question("test_2", "bamboogle test question 2?", golden, data_source="bamboogle")
    chosen = questions(path, only=frozenset({"popqa"}))
    assert {question.data_source for question in chosen} == {"popqa"}
    assert len(chosen) == 3


def test_verls_names_and_missing_columns(tmp_path: Path) -> None:
    row = upstream(0, "searchR1_nq", "train")
    del row["golden_answers"], row["metadata"]
    (question,) = questions(write_parquet(tmp_path / "train.parquet", [row]))
    assert question.data_source == "nq"
    assert question.golden_answers == ("searchR1_nq answer 0", "other")


def test_exported_runs_know_golden_answers_only_if_they_were_told(tmp_path: Path) -> None:
    runs = write_lines(tmp_path / "runs.jsonl", a_run("run_1").model_dump(mode="json"))
    (asked,) = questions(runs)
    assert (asked.id, asked.golden_answers) == ("run_1", ())
    golden = write_lines(tmp_path / "golden.jsonl", {"question": asked.question, "golden_answers": ["x"]})
    for output, answers in (("without.parquet", None), ("with.parquet", golden)):
        export(ExportConfig(tmp_path / output, url="", input=runs, golden=answers), progress=False)
    assert questions(tmp_path / "without.parquet") == [
        Question("run_1", asked.question, (), data_source="searchr1"),
    ]
    assert questions(tmp_path / "with.parquet")[0].golden_answers == ("x",)


def test_numbers_as_ids_are_read_as_text(tmp_path: Path) -> None:
    line = flashrag(0, "nq", "test") | {"id": 7}
    assert questions(write_lines(tmp_path / "a.jsonl", line))[0].id == "7"
    assert questions(write_parquet(tmp_path / "a.parquet", [line]))[0].id == "7"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": None}, "row 2: 'question': Input should be"),
        ({"question": "  "}, "row 2: 'question': .*at least 1"),
        ({"golden_answers": ["a", None]}, r"row 2: 'golden_answers\.1'"),
        ({"id": None}, "row 2: 'id'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [upstream(0, "nq", "test"), upstream(1, "nq", "test") | change])
    with pytest.raises(DatasetError, match=says) as caught:
        questions(path)
    assert str(caught.value).startswith(f"{path}, ")


@pytest.mark.parametrize("truth", ["text", {"target": "text"}])
def test_a_strange_reward_model_is_a_bad_row(tmp_path: Path, truth: object) -> None:
    row = {"id": "a", "question": "q", "reward_model": {"style": "rule", "ground_truth": truth}}
    with pytest.raises(DatasetError, match="row 1: 'golden_answers"):
        questions(write_parquet(tmp_path / "a.parquet", [row]))


def test_a_row_without_a_reward_model_has_no_golden_answers(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "q", "reward_model": truth} for truth in (None, {"ground_truth": None})]
    path = write_parquet(tmp_path / "a.parquet", rows)
    assert [question.golden_answers for question in questions(path)] == [(), ()]


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"id": "a", "text": "q"}])
    with pytest.raises(DatasetError, match="no column 'question'; it has id, text"):
        questions(path)
    path = write_parquet(tmp_path / "b.parquet", [{"id": "a", "question": "q"}])
    with pytest.raises(DatasetError, match="neither a column 'golden_answers' nor 'reward_model'"):
        questions(path)


def test_a_column_of_the_wrong_type_is_an_error_of_the_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"id": "a", "question": "q", "golden_answers": "one"}])
    with pytest.raises(DatasetError, match="row 1: 'golden_answers'"):
        questions(path)


def test_broken_files_are_named(tmp_path: Path) -> None:
    none = tmp_path / "none.parquet"
    with pytest.raises(DatasetError, match=r"none\.parquet cannot be read as parquet"):
        questions(none)
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    with pytest.raises(DatasetError, match=r"text\.parquet cannot be read as parquet"):
        questions(text)
    whole = seven_sets(tmp_path / "whole.parquet", num_each=200).read_bytes()
    middle = tmp_path / "middle.parquet"
    middle.write_bytes(whole[:100] + b"\xff" * 400 + whole[500:])
    with pytest.raises(DatasetError, match=r"middle\.parquet"):
        questions(middle)


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    rows = [upstream(i, "nq", "train") for i in range(50_000)]
    path = write_parquet(tmp_path / "train.parquet", rows, row_group_size=5_000)
    del rows
    before = pa.total_allocated_bytes()
    reading = read(SourceFile(path))
    most = 0
    for number, _ in enumerate(reading):
        if number % 500 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert 0 < most < 4 * 2**20, "only some batches are in memory"
