"""Rows measured on a real engine, with a random model: what is kept, what is not asked again, what is left out."""

from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.seven import measuring
from loadtests.seven.kept import digest_of, read_kept, read_places, records_file
from loadtests.seven.measuring import Setup, measure, passes
from loadtests.seven.oracle import oracle_passages
from loadtests.seven.questions import read_questions, sampled
from loadtests.seven.rows import ROWS, row_named
from loadtests.seven.scores import read_results
from searchr1.evaluation.records import Record, read_records
from searchr1.retrieval.index.bm25 import build_index
from tests.seven.papers import write_corpus, write_questions
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.torch

NAMES = ("direct", "rag-bm25", "oracle", "r1", "form-bm25", "rag-form-bm25")


@pytest.fixture(autouse=True)
def _a_small_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"ENGINE": "transformers", "MAX_COMPLETION_TOKENS": "8", "MAX_TURNS": "2"}
    for name, value in settings.items():
        monkeypatch.setenv(f"SEARCHR1_{name}", value)


@pytest.fixture
def setup(tmp_path: Path, model_dir: Path) -> Setup:
    corpus = write_corpus(tmp_path)
    build_index(corpus, tmp_path / "index", progress=False)
    questions = sampled(read_questions(write_questions(tmp_path)), 1)
    other = write_tiny_model(tmp_path / "other")
    return Setup(
        out=tmp_path / "out",
        questions=tuple(questions),
        checkpoints={"base": model_dir, "form": other, "r1": other},
        retrievers={"bm25": f"index:{tmp_path / 'index'}"},
        gold=oracle_passages(questions, corpus),
        command="python -m loadtests.seven run OUT",
        made={"form": "a short SFT"},
        concurrency=4,
        progress=False,
    )


def records(setup: Setup, name: str) -> list[Record]:
    return read_records(records_file(setup.out, name))


async def test_rows_are_measured_once_and_go_on(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row_named(name) for name in NAMES]
    told: list[str] = []
    assert await measure(setup, rows, told.append)
    # Checkpoint by checkpoint, in which order the rows are named here.
    assert [line.partition(":")[0] for line in told] == [f"[{n}/6] {name}.greedy" for n, name in enumerate(NAMES, 1)]
    assert {len(records(setup, f"{name}.greedy")) for name in NAMES} == {4}
    assert {record.searches for record in records(setup, "rag-bm25.greedy")} == {1}
    assert {record.searches for record in records(setup, "r1.greedy")} == {0}
    # The gold passage of each question was in its prompt, and no other.
    assert all(record.observation_tokens > 0 for record in records(setup, "oracle.greedy"))
    assert {record.options["retriever"] for record in records(setup, "oracle.greedy")} == {"oracle"}

    kept = {one.row: one for one in read_kept(setup.out)}
    assert kept.keys() == set(NAMES)
    assert all(one.is_finished and one.wall_s > 0 and one.command for one in kept.values())
    assert kept["direct"].digest == digest_of(setup.checkpoints["base"]) != ""
    assert (kept["form-bm25"].made, kept["r1"].made, kept["direct"].made) == ("a short SFT", "RL without search", "")
    assert "SEARCHR1_ENGINE=transformers" in kept["direct"].made_with["engine"]
    assert len(read_places(setup.out)) == 4
    assert len(read_results(setup.out).rows) == 6

    # One record is lost: its question alone is asked again.
    file = records_file(setup.out, "rag-bm25.greedy")
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    told.clear()
    assert await measure(setup, rows, told.append)
    assert sorted(line.rpartition(": ")[2] for line in told).count("measured before") == 5
    assert [line.partition(":")[0] for line in told if line.startswith("[")] == ["[1/1] rag-bm25.greedy"]
    assert len(records(setup, "rag-bm25.greedy")) == 4
    assert len(next(one for one in read_kept(setup.out) if one.row == "rag-bm25").sessions) == 2

    async def opened(*_: object) -> bool:
        raise AssertionError("nothing is left to measure, and an engine was opened")

    monkeypatch.setattr(measuring, "_measure_on_one_engine", opened)
    assert await measure(setup, rows, told.append)


async def test_what_a_row_lacks_is_told(setup: Setup) -> None:
    told: list[str] = []
    bare = replace(setup, checkpoints={}, retrievers={}, gold=None)
    assert await measure(bare, ROWS, told.append)
    assert len(told) == len(ROWS)
    assert told[0] == "direct.greedy: left out, it needs --checkpoint base=DIR"
    told.clear()
    partly = replace(setup, retrievers={}, gold=None)
    assert await measure(partly, [row_named(name) for name in ("rag-dense", "oracle")], told.append)
    assert told == [
        "rag-dense.greedy: left out, it needs --dense RETRIEVER",
        "oracle.greedy: left out, it needs --corpus FILE",
    ]


async def test_records_of_other_weights_are_no_results_of_these(setup: Setup) -> None:
    rows, told = [row_named("direct")], list[str]()
    assert await measure(setup, rows, told.append)
    # Another folder under the same name: its records may not be mixed with those that are there.
    other = setup.checkpoints["form"]
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    told.clear()
    assert not await measure(replace(setup, checkpoints={"base": other}), rows, told.append)
    assert read_kept(setup.out)[0].digest == digest_of(setup.checkpoints["base"])
    assert "results of another checkpoint for direct.greedy" in told[-1]


def test_greedy_passes_come_first_and_samples_have_seeds() -> None:
    rows = [row_named(name) for name in ("form-bm25", "direct", "rag-form-bm25")]
    found = passes(rows, 2)
    assert [one.name for one in found[:3]] == ["form-bm25.greedy", "rag-form-bm25.greedy", "direct.greedy"]
    assert {(one.sampling, one.seed) for one in found} == {("greedy", None), ("sampled-1", 1), ("sampled-2", 2)}
    assert found[0].options == {"temperature": 0.0, "top_k": 3}
    assert found[3].options == {"temperature": 1.0, "top_k": 3, "seed": 1}
    assert passes([row_named("r1")], 0)[0].options["max_searches"] == 0
