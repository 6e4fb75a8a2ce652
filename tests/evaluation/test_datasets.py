"""Questions from files and sets: what is read, and what is refused with which words."""

import json
from pathlib import Path

import pytest

from searchr1.errors import DatasetError
from searchr1.evaluation.datasets import Question, load_questions
from tests.data.files import flashrag, flashrag_folder, seven_sets, write_lines, write_parquet

LINES: list[dict[str, object]] = [
    {"id": "a", "question": " Where? ", "golden_answers": ["Mali", "ML"], "hops": 2, "kind": "city", "entities": []},
    {"id": "b", "question": "Who?", "golden_answers": ["Ann"]},
]


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", *LINES)
    assert load_questions(str(path)) == (
        Question("a", "Where?", ("Mali", "ML"), hops=2, kind="city"),
        Question("b", "Who?", ("Ann",)),
    )


def test_a_limit_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", LINES[0], "not a question")
    assert [question.id for question in load_questions(str(path), limit=1)] == ["a"]


def test_atlas_is_found_by_its_split(tmp_path: Path) -> None:
    write_lines(tmp_path / "atlas" / "questions-validation.jsonl", LINES[1] | {"id": "atlas-validation-1"})
    (question,) = load_questions("atlas", split="validation", data_dir=tmp_path)
    assert (question.id, question.data_source) == ("atlas-validation-1", "atlas")


def test_sets_are_told_apart_and_limited_one_by_one(tmp_path: Path) -> None:
    seven_sets(tmp_path / "test.parquet")
    questions = load_questions("NQ, musique", limit=2, data=str(tmp_path))
    assert [question.id for question in questions] == ["nq/test_0", "nq/test_1", "musique/test_0", "musique/test_1"]
    assert questions[2] == Question(
        "musique/test_0", "musique test question 0?", ("musique answer 0", "other"), data_source="musique"
    )
    assert len(load_questions("seven", data=str(tmp_path))) == 21


def test_both_formats_hold_the_same_questions(tmp_path: Path) -> None:
    columns = load_questions("seven", data=str(seven_sets(tmp_path / "test.parquet")))
    lines = load_questions("seven", data=str(flashrag_folder(tmp_path / "flashrag")))
    assert [(q.question.rstrip("?"), q.golden_answers, q.data_source) for q in columns] == [
        (f"{q.data_source} test question {q.id[-1]}", q.golden_answers, q.data_source) for q in lines
    ]


def test_a_file_of_all_sets_needs_no_names(tmp_path: Path) -> None:
    path = seven_sets(tmp_path / "test.parquet", num_each=2)
    assert len({question.id for question in load_questions(str(path))}) == 14
    assert [question.id for question in load_questions(str(path), limit=3)] == [
        "nq/test_0",
        "nq/test_1",
        "triviaqa/test_0",
    ]


def test_atlas_files_and_sets_can_be_asked_together(tmp_path: Path) -> None:
    mine = write_lines(tmp_path / "mine.jsonl", *LINES)
    seven_sets(tmp_path / "test.parquet")
    questions = load_questions(f"{mine},bamboogle", limit=1, data=str(tmp_path))
    assert [question.id for question in questions] == ["a", "bamboogle/test_0"]
    with pytest.raises(DatasetError, match="the id 'a' is taken"):
        load_questions(f"{mine},{mine}")


def test_commas_in_a_path_are_its_own(tmp_path: Path) -> None:
    assert len(load_questions(str(write_lines(tmp_path / "a,b.jsonl", *LINES)))) == 2


def test_a_set_that_the_file_lacks_is_named(tmp_path: Path) -> None:
    path = seven_sets(tmp_path / "test.parquet", sets=("nq",))
    with pytest.raises(DatasetError, match=r"test\.parquet holds no questions of musique, popqa"):
        load_questions("nq,popqa,musique", data=str(path))
    with pytest.raises(DatasetError, match="names no dataset"):
        load_questions(" , ")


def test_questions_without_golden_answers_cannot_be_scored(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "runs.parquet", [flashrag(0, "nq", "test") | {"golden_answers": []}])
    with pytest.raises(DatasetError, match=r"row 1: .*no golden answers.*data prepare --golden"):
        load_questions(str(path))


def test_blank_lines_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\r\n" + json.dumps(LINES[0]).encode() + b"\r\n\r\n" + json.dumps(LINES[1]).encode())
    assert len(load_questions(str(path))) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "line 2: expected an object"),
        (b'{"id": "x", "question": "q"}', "no golden answers to score by"),
        (b'{"id": "x", "question": "q", "golden_answers": []}', "no golden answers to score by"),
        (b'{"id": "x", "question": "q", "golden_answers": {"a": 1}}', "'golden_answers'"),
        (b'{"id": "x", "question": "q", "golden_answers": [true]}', "'golden_answers"),
        (b'{"id": "x", "question": "  ", "golden_answers": ["a"]}', "'question': .*at least 1"),
        (b'{"id": "x", "question": "\xff", "golden_answers": ["a"]}', "line 2: "),
        (b'{"id": "x", "question": "\\ud800", "golden_answers": ["a"]}', "'question': Input should be"),
        (b'{"id": "a", "question": "q", "golden_answers": ["a"]}', "the id 'a' is taken"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(json.dumps(LINES[0]).encode() + b"\n" + line + b"\n")
    with pytest.raises(DatasetError, match=says) as caught:
        load_questions(str(path))
    assert str(caught.value).startswith(f"{path}, line 2: ")


def test_missing_and_empty_files_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="searchr1 demo build"):
        load_questions("atlas", data_dir=tmp_path)
    with pytest.raises(DatasetError, match=r"nothing.jsonl does not exist. Give 'atlas' or the path"):
        load_questions(str(tmp_path / "nothing.jsonl"))
    with pytest.raises(DatasetError, match="holds no questions of the split 'test'"):
        load_questions(str(tmp_path))
    with pytest.raises(DatasetError, match="holds no questions"):
        load_questions(str(write_lines(tmp_path / "empty.jsonl")))
