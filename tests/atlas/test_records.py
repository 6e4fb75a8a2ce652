"""Records survive their files, and a line that is none is named."""

import json
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from searchr1.atlas.questions import generate
from searchr1.atlas.readings import readings
from searchr1.atlas.records import read_demonstrations, read_readings
from searchr1.atlas.teacher import Teacher
from searchr1.atlas.world import World
from searchr1.errors import DatasetError
from searchr1.files import write_json_lines
from searchr1.loop.types import Passage
from tests.atlas.conftest import demonstrate

DEMONSTRATION = {
    "id": "1",
    "question": "q",
    "golden_answers": ["a"],
    "hops": 1,
    "kind": "city-country",
    "turns": [{"text": "<answer> a </answer>", "query": None, "passages": []}],
    "entities": {"a": "country"},
}
STATEMENT = {"document": "Doc 1", "quote": "(Title: t) x", "given": "So x is", "value": "x"}
READING = {"passages": [{"title": "t", "text": "x"}], "statements": [STATEMENT]}


def test_demonstrations_survive_their_file(
    world: World, oracle: Callable[[str], Sequence[Passage]], tmp_path: Path
) -> None:
    teacher = Teacher(world)
    made = [demonstrate(teacher, question, oracle) for question in generate(world, "test", 20, 0)]
    rows = [item.to_row() for item in made if item is not None]
    assert write_json_lines(tmp_path / "d.jsonl", rows) == len(rows) > 10
    assert [item.to_row() for item in read_demonstrations(tmp_path / "d.jsonl")] == rows


def test_readings_survive_their_file(world: World, tmp_path: Path) -> None:
    rows = [item.to_row() for item in islice(readings(world, Random(0)), 20)]
    assert write_json_lines(tmp_path / "r.jsonl", rows) == 20
    assert [item.to_row() for item in read_readings(tmp_path / "r.jsonl")] == rows


def lines(path: Path, *texts: str) -> Path:
    path.write_text("".join(text + "\n" for text in texts), "utf-8")
    return path


@pytest.mark.parametrize(
    "bad", ["{", "[]", json.dumps(DEMONSTRATION | {"turns": []}), json.dumps(DEMONSTRATION | {"turns": [1]})]
)
def test_a_line_that_is_no_demonstration_is_named(tmp_path: Path, bad: str) -> None:
    path = lines(tmp_path / "d.jsonl", json.dumps(DEMONSTRATION), bad)
    with pytest.raises(DatasetError, match=r"d\.jsonl, line 2: "):
        list(read_demonstrations(path))


@pytest.mark.parametrize("bad", ["{", "[]", json.dumps({"passages": []}), json.dumps(READING | {"statements": [1]})])
def test_a_line_that_is_no_reading_is_named(tmp_path: Path, bad: str) -> None:
    path = lines(tmp_path / "r.jsonl", json.dumps(READING), bad)
    with pytest.raises(DatasetError, match=r"r\.jsonl, line 2: "):
        list(read_readings(path))
