"""Evidence beside questions: which fields count, where steps come from, and what packed files look like."""

from pathlib import Path

import pytest

from searchr1.data.evidence import GoldQuestion, Step, gold_questions, read_steps
from searchr1.data.prepare import PrepareConfig, prepare
from searchr1.data.questions import Question
from searchr1.errors import DatasetError
from tests.data.files import seven_sets, write_lines
from tests.starts.invented import of_one_hop, of_two_hops, steps_of, write_gz, write_world


def test_a_folder_of_packed_lines_is_read_as_it_is(tmp_path: Path) -> None:
    world = write_world(tmp_path)
    found = list(gold_questions([str(world)], "test", {}))
    assert found[0] == GoldQuestion(
        Question("one_test_6", "In what year was the town of Pellago founded?", ("1807",), 1, None, "squad"),
        ("13",),
        ("Pellago",),
    )
    assert [gold.question.hops for gold in found] == [1, 2, 1, 2]
    report = prepare(PrepareConfig((str(world),), tmp_path / "out.jsonl"), progress=False)
    assert report.by_source == {"musique": 6, "squad": 6}
    named = prepare(PrepareConfig(("musique",), tmp_path / "named.jsonl", data=str(world)), progress=False)
    assert named.by_source == {"musique": 6}


def test_steps_are_a_rows_own_or_those_of_its_id(tmp_path: Path) -> None:
    own = of_two_hops(0, "train") | steps_of(1, "train") | {"id": "own"}
    questions = write_gz(tmp_path / "q.jsonl.gz", [own, of_two_hops(2, "train"), of_one_hop(0, "train")])
    other = write_lines(tmp_path / "steps.jsonl", steps_of(2, "train"), {"id": "without"})
    steps = read_steps(other)
    assert list(steps) == ["two_train_2"]
    found = list(gold_questions([str(questions)], "train", steps))
    assert [gold.steps[0].question if gold.steps else "" for gold in found] == [
        "Quistan >> founded by",
        "Brenhollow >> founded by",
        "",
    ]
    assert found[1].steps[1] == Step("Where was #1 born?", "Ellisport")


def test_evidence_may_be_titles_alone_or_unknown(tmp_path: Path) -> None:
    plain = {"question": "q", "golden_answers": ["a"]}
    titles = plain | {"id": 7, "evidence_titles": ["A", "B"], "gold_ids": None}
    path = write_lines(tmp_path / "q.jsonl", titles, plain | {"gold_ids": [3]})
    first, second = gold_questions([str(path)], "train", {})
    assert (first.titles, first.gold_ids) == (("A", "B"), ())
    assert (second.titles, second.gold_ids) == ((), ()), "a row without an id of its own has no evidence"
    parquet = seven_sets(tmp_path / "test.parquet", num_each=1)
    assert all(not gold.titles for gold in gold_questions([str(parquet)], "test", {}))


def test_evidence_of_another_form_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "q.jsonl", {"id": "a", "question": "q", "golden_answers": ["a"], "gold_ids": "3"})
    with pytest.raises(DatasetError, match="line 1: 'gold_ids'"):
        list(gold_questions([str(path)], "train", {}))
