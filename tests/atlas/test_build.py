import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from searchr1.atlas.build import build, build_world, demonstrations
from searchr1.atlas.corpus import Entry
from searchr1.atlas.questions import generate
from searchr1.atlas.renamed import renamed_world
from searchr1.atlas.world import World
from searchr1.cli.main import app
from searchr1.loop.types import Passage

Oracle = Callable[[str], Sequence[Passage]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_build_searches_a_real_index_and_writes_whole_files(tmp_path: Path, world: World) -> None:
    report = build(tmp_path, num_demonstrations=40, seed=0, progress=False)
    assert {path.name for path in tmp_path.iterdir()} == set(report.written) == {
        "corpus.jsonl",
        "corpus-train.jsonl",
        "questions-train.jsonl",
        "questions-validation.jsonl",
        "questions-test.jsonl",
        "questions-test-system.jsonl",
        "questions-test-history.jsonl",
        "questions-test-follow-up.jsonl",
        "demonstrations-train.jsonl",
        "demonstrations-validation.jsonl",
    }  # fmt: skip
    train = rows_of(tmp_path / "demonstrations-train.jsonl")
    assert len(train) == report.written["demonstrations-train.jsonl"] >= 35
    for row in train:
        assert set(row) >= {"id", "question", "golden_answers", "hops", "kind", "turns"}
        assert [turn["query"] is None for turn in row["turns"]] == [False] * (len(row["turns"]) - 1) + [True]
        assert all(len(turn["passages"]) <= 3 for turn in row["turns"])
    swapped = sum(row["id"].endswith("-swapped") for row in train)
    assert 0 < swapped < len(train)
    validation = rows_of(tmp_path / "demonstrations-validation.jsonl")
    assert len(validation) > 950
    assert not any(row["id"].endswith("-swapped") for row in validation)
    assert report.written["questions-test.jsonl"] >= 1000
    assert all(not world.held_out.occurs_in(part) for row in train for part in texts(row))


@pytest.mark.slow
def test_half_of_the_demonstrations_can_come_from_renamed_worlds(tmp_path: Path, world: World) -> None:
    build(tmp_path, num_demonstrations=40, num_renamed_worlds=2, seed=1, progress=False)
    train = rows_of(tmp_path / "demonstrations-train.jsonl")
    assert len(train) == 40
    known = {city.name for city in world.cities} | {country.phrase for country in world.countries.values()}
    for row in train[20:]:
        assert any(row["golden_answers"][0] in passage["text"] for turn in row["turns"] for passage in turn["passages"])
    strange = [row for row in train[20:] if not any(name in row["question"] for name in known)]
    assert strange
    assert all(not world.held_out.occurs_in(part) for row in train for part in texts(row))


@pytest.mark.slow
def test_of_a_partly_renamed_world_the_strange_countries_are_asked_about(tmp_path: Path, world: World) -> None:
    written = build(
        tmp_path, num_demonstrations=40, num_renamed_worlds=1, renamed_share=0.3, num_readings=30, progress=False
    ).written
    assert written["demonstrations-train.jsonl"] == 40
    assert written["readings-train.jsonl"] == len(rows_of(tmp_path / "readings-train.jsonl")) == 30
    renamed = renamed_world(world, 0, 0.3)
    strange = {code for code, country in renamed.countries.items() if country.name != world.countries[code].name}
    names = {name for code in strange for name in (renamed.countries[code].phrase, renamed.countries[code].capital)}
    names |= {city.name for city in renamed.cities if city.country in strange}
    for row in rows_of(tmp_path / "demonstrations-train.jsonl")[20:]:
        assert any(name in row["question"] for name in names), row["question"]


def texts(row: dict[str, Any]) -> list[str]:
    passages = [passage for turn in row["turns"] for passage in turn["passages"]]
    return [
        row["question"],
        *row["golden_answers"],
        *(turn["text"] for turn in row["turns"]),
        *(passage["title"] for passage in passages),
        *(passage["text"] for passage in passages),
    ]


@pytest.mark.slow
def test_the_files_for_serving_are_those_of_the_full_build(
    tmp_path: Path, world: World, all_entries: Sequence[Entry]
) -> None:
    written = build_world(tmp_path, num_train_questions=50)
    assert written["corpus.jsonl"] == len(all_entries)
    asked = [row["question"] for row in rows_of(tmp_path / "questions-test.jsonl")]
    assert asked == [question.question for question in generate(world, "test", 2000, 0)]


def test_each_query_is_searched_once_and_failures_are_counted(world: World, oracle: Oracle) -> None:
    searched: Counter[str] = Counter()

    def search(queries: list[str]) -> list[list[Passage]]:
        searched.update(queries)
        return [[] if "continent" in query else list(oracle(query)) for query in queries]

    dropped: Counter[str] = Counter()
    questions = generate(world, "test", 300, 0)
    made = list(demonstrations(world, questions, search, dropped))
    assert set(searched.values()) == {1}
    lost = [question for question in questions if question.kind.endswith("continent")]
    assert sum(dropped.values()) == len(lost) == len(questions) - len(made) > 0
    assert [demonstration.id for demonstration in made] == [
        question.id for question in questions if question not in lost
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--renamed", "--demonstrations", "10"), "--renamed writes no demonstrations"),
        (("--renamed-worlds", "2"), "Give --demonstrations too"),
        (("--renamed", "--renamed-worlds", "2"), "Give --demonstrations too"),
        (("--readings", "2"), "Give --demonstrations too"),
        (("--talk",), "Give --demonstrations too"),
        (("--demonstrations", "10", "--renamed-share", "0.3"), "Give --renamed-worlds too"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    done = CliRunner().invoke(app, ["demo", "build", "--data-dir", str(tmp_path), *flags])
    assert done.exit_code == 1
    assert message in str(done.exception)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_talk_is_built_from_the_train_split_alone(tmp_path: Path, world: World) -> None:
    written = build(tmp_path, num_demonstrations=100, num_renamed_worlds=1, talk=True, seed=1, progress=False).written
    train = rows_of(tmp_path / "demonstrations-train.jsonl")
    assert len(train) == written["demonstrations-train.jsonl"]
    assert all(not world.held_out.occurs_in(part) for row in train for part in texts(row))
    off_topic = [row for row in train if row["kind"] == "off-topic"]
    assert off_topic
    assert all(len(row["turns"]) == 1 for row in off_topic)
    in_conversation = [row for row in train if "Given this conversation:\n" in row["question"]]
    assert in_conversation
    for form in ("system", "history", "follow-up"):
        papers = rows_of(tmp_path / f"questions-test-{form}.jsonl")
        assert len(papers) == 500
        assert all(paper["messages"][-1]["role"] == "user" for paper in papers)
