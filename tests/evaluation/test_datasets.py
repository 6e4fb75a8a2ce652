"""Questions from files: what is read, and what is refused with which words."""

import json
from pathlib import Path

import pytest

from searchr1.errors import DatasetError
from searchr1.evaluation.datasets import Question, dataset_path, load_questions

LINES = [
    {"id": "a", "question": " Where? ", "golden_answers": ["Mali", "ML"], "hops": 2, "kind": "city", "entities": []},
    {"id": "b", "question": "Who?", "golden_answers": ["Ann"]},
]


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return path


def test_a_file_is_read_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", *LINES)
    assert load_questions(str(path)) == (
        Question("a", "Where?", ("Mali", "ML"), hops=2, kind="city"),
        Question("b", "Who?", ("Ann",)),
    )


def test_a_limit_takes_the_first_and_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", LINES[0], "not a question")
    assert [question.id for question in load_questions(str(path), limit=1)] == ["a"]


def test_atlas_is_found_by_its_split(tmp_path: Path) -> None:
    write(tmp_path / "atlas" / "questions-validation.jsonl", LINES[1])
    assert load_questions("atlas", split="validation", data_dir=tmp_path)[0].id == "b"
    assert dataset_path("atlas") == Path("data/atlas/questions-test.jsonl")


def test_blank_lines_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_bytes(b"\r\n" + json.dumps(LINES[0]).encode() + b"\r\n\r\n" + json.dumps(LINES[1]).encode())
    assert len(load_questions(str(path))) == 2


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"{", "Invalid JSON"),
        (b"[]", "line 2: Input should be"),
        (b'{"id": "x", "question": "q"}', "'golden_answers': Field required"),
        (b'{"id": "x", "question": "q", "golden_answers": []}', "'golden_answers': .*at least 1"),
        (b'{"id": "x", "question": "q", "golden_answers": "Mali"}', "'golden_answers'"),
        (b'{"id": "x", "question": "  ", "golden_answers": ["a"]}', "'question': .*at least 1"),
        (b'{"id": "x", "question": "\xff", "golden_answers": ["a"]}', "line 2: "),
        (b'{"id": "x", "question": "\\ud800", "golden_answers": ["a"]}', "Invalid JSON"),
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
    with pytest.raises(DatasetError, match="cannot be read"):
        load_questions(str(tmp_path))
    with pytest.raises(DatasetError, match="holds no questions"):
        load_questions(str(write(tmp_path / "empty.jsonl")))
