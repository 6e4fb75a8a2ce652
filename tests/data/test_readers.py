"""Reading rows: what is taken of each format, and how a bad row is named."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pytest

from searchr1.data import readers
from searchr1.data.golden import GoldenAnswers
from searchr1.data.questions import Question
from searchr1.data.readers import num_rows, read
from searchr1.data.sources import SourceFile
from searchr1.errors import DatasetError
from searchr1.export.run import ExportConfig, export
from searchr1.files import BadLines
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


def test_a_set_may_be_called_dataset(tmp_path: Path) -> None:
    line = flashrag(0, "nq", "test")
    assert questions(write_lines(tmp_path / "a.jsonl", line | {"dataset": "2wiki"}))[0].data_source == "2wikimultihopqa"
    both = line | {"dataset": "2wiki", "data_source": "nq"}
    assert questions(write_lines(tmp_path / "b.jsonl", both))[0].data_source == "nq"
    assert questions(write_lines(tmp_path / "c.jsonl", line | {"dataset": {"name": "nq"}}))[0].data_source is None


def test_numbers_as_ids_are_read_as_text(tmp_path: Path) -> None:
    line = flashrag(0, "nq", "test") | {"id": 7}
    assert questions(write_lines(tmp_path / "a.jsonl", line))[0].id == "7"
    assert questions(write_parquet(tmp_path / "a.parquet", [line]))[0].id == "7"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"question": None, "prompt": None, "extra_info": None}, "row 2: 'question': Field required"),
        ({"question": "  "}, "row 2: 'question': .*at least 1"),
        ({"golden_answers": ["a", None]}, r"row 2: 'golden_answers\.1'"),
        ({"id": "  "}, "row 2: 'id'"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", [upstream(0, "nq", "test"), upstream(1, "nq", "test") | change])
    with pytest.raises(DatasetError, match=says) as caught:
        questions(path)
    assert str(caught.value).startswith(f"{path}, ")


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


def verl_row(number: int) -> dict[str, Any]:
    """A row as verl's own ``preprocess_search_r1_dataset.py`` makes it: no id, no question, no golden answers."""
    row = upstream(number, "searchR1_nq", "train")
    target = {"target": row["golden_answers"]}
    create = {"ground_truth": target, "question": row["question"], "data_source": row["data_source"]}
    extra = {"index": number, "need_tools_kwargs": True, "question": row["question"], "split": "train"}
    kept = {name: row[name] for name in ("data_source", "prompt", "ability", "reward_model")}
    return {**kept, "extra_info": {**extra, "tools_kwargs": {"search": {"create_kwargs": create}}}, "metadata": None}


def skyrl_row(number: int) -> dict[str, Any]:
    row = verl_row(number)
    row["reward_spec"] = row.pop("reward_model")
    return {**row, "env_class": "search"}


GOLDEN = ("searchR1_nq answer 1", "other")
ASKED = "searchR1_nq train question 1?"
SHAPES: list[tuple[dict[str, Any], Question]] = [
    (verl_row(1), Question("train_1", ASKED, GOLDEN, data_source="nq")),
    (skyrl_row(1), Question("train_1", ASKED, GOLDEN, data_source="nq")),
    (
        {"prompt": verl_row(1)["prompt"], "reward_model": verl_row(1)["reward_model"], "extra_info": {"index": 4}},
        Question("4", ASKED, GOLDEN),
    ),
    ({"id": 7, "question": "q", "golden_answers": "Jane Austen"}, Question("7", "q", ("Jane Austen",))),
    ({"id": "a", "question": "q", "golden_answers": [1815]}, Question("a", "q", ("1815",))),
    ({"id": "a", "question": "q", "golden_answers": 3.5}, Question("a", "q", ("3.5",))),
    ({"id": "a", "question": "q", "golden_answers": [["x", "y"], ["z"]]}, Question("a", "q", ("x", "y", "z"))),
    ({"id": "a", "question": "q", "golden_answers": '["x", "y"]'}, Question("a", "q", ("x", "y"))),
    ({"id": "a", "question": "q", "golden_answers": "[1] is a note"}, Question("a", "q", ("[1] is a note",))),
    ({"id": "a", "question": "q", "answers": ["x"]}, Question("a", "q", ("x",))),
    ({"_id": "a", "question": "q", "answer": "x"}, Question("a", "q", ("x",))),
    ({"id": "a", "question": "q", "answer": "x", "answer_aliases": ["y"]}, Question("a", "q", ("x", "y"))),
    ({"id": "a", "question": "q", "target": "x"}, Question("a", "q", ("x",))),
    ({"id": "a", "question": "q", "reward_model": {"ground_truth": {"target": "x"}}}, Question("a", "q", ("x",))),
    ({"id": "a", "question": "q", "reward_model": {"ground_truth": ["x"]}}, Question("a", "q", ("x",))),
    ({"id": "a", "question": "q", "reward_model": {"ground_truth": "x"}}, Question("a", "q", ("x",))),
    (
        {"id": "a", "question": "q", "reward_model": '{"style": "rule", "ground_truth": {"target": ["x"]}}'},
        Question("a", "q", ("x",)),
    ),
    (
        {"id": "a", "question": "q", "golden_answers": [], "reward_model": {"ground_truth": {"target": ["x"]}}},
        Question("a", "q", ("x",)),
    ),
    (
        {"id": "a", "question": "q", "golden_answers": None, "reward_model": {"ground_truth": {"target": [["x"]]}}},
        Question("a", "q", ("x",)),
    ),
    ({"question": "q", "golden_answers": ["x"]}, Question("file_1", "q", ("x",))),
    ({"id": None, "question": "q", "golden_answers": ["x"]}, Question("file_1", "q", ("x",))),
    ({"id": "a", "question": "q", "golden_answers": [], "answer": "the model's own"}, Question("a", "q", ())),
]


@pytest.mark.parametrize("form", ["lines", "array", "gzip", "bom", "parquet"])
@pytest.mark.parametrize(("row", "expected"), SHAPES)
def test_every_shape_of_a_row(tmp_path: Path, row: dict[str, Any], expected: Question, form: str) -> None:
    line = json.dumps(row).encode()
    written = {"lines": line, "array": b"[" + line + b"]", "gzip": gzip.compress(line), "bom": b"\xef\xbb\xbf" + line}
    path = tmp_path / "file.x"
    if form == "parquet":
        write_parquet(path, [row])
    else:
        path.write_bytes(written[form])
    assert questions(path) == [expected]
    golden = GoldenAnswers(path, lambda _: None)
    assert golden.of(expected.question) == list(expected.golden_answers)


def test_a_column_of_the_wrong_type_is_an_error_of_the_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [{"id": "a", "question": "q", "golden_answers": {"one": 1}}])
    with pytest.raises(DatasetError, match="row 1: 'golden_answers'"):
        questions(path)


@pytest.mark.parametrize("form", ["lines", "parquet"])
def test_malformed_rows_end_it_with_a_hint_or_are_left_out(tmp_path: Path, form: str) -> None:
    good, bad = (
        {"id": "a", "question": "q", "golden_answers": ["x"]},
        {"id": "b", "question": "  ", "golden_answers": ["x"]},
    )
    rows = [bad, good, bad | {"id": "c"}]
    path = tmp_path / "a.x"
    write_parquet(path, rows) if form == "parquet" else write_lines(path, *rows)
    strict, lenient = BadLines(skip=False), BadLines(skip=True)
    with pytest.raises(DatasetError, match=r"(line|row) 1: 'question': .* To leave out what is malformed: --skip-bad"):
        list(read(SourceFile(path), strict))
    assert [question.id for _, question in read(SourceFile(path), lenient)] == ["a"]
    assert str(lenient).startswith(f"2 malformed, the first: {path}, ")


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
