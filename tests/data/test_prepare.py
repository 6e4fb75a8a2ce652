"""``searchr1 data prepare``, whole: what it writes, what it leaves out, what it refuses."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from searchr1.data import upstream as upstream_module
from searchr1.data.prepare import PrepareConfig, PrepareReport, prepare
from searchr1.data.sets import SETS
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.evaluation.datasets import load_questions
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from tests.data.files import flashrag, flashrag_folder, seven_sets, upstream, write_lines, write_parquet
from tests.export.records import run_json

ATLAS = {"question": "Where is Timbuktu", "golden_answers": ["Mali"], "hops": 1, "kind": "city-country"}


def prepared(output: Path, *sources: object, **options: Any) -> PrepareReport:
    return prepare(PrepareConfig(tuple(map(str, sources)), output, **options), progress=False)


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows


def ids_of(path: Path) -> list[str]:
    return [row["id"] for row in rows_of(path)]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "made" / "train.parquet"


def test_upstreams_columns(tmp_path: Path, out: Path) -> None:
    write_lines(tmp_path / "atlas" / "questions-train.jsonl", ATLAS | {"id": "atlas-train-1"})
    root = flashrag_folder(tmp_path / "flashrag")
    report = prepared(out, "atlas", "nq", data_dir=tmp_path, data=str(root))
    assert rows_of(out)[0] == {
        "id": "atlas-train-1",
        "question": "Where is Timbuktu?",
        "golden_answers": ["Mali"],
        "data_source": "atlas",
        "prompt": [{"role": "user", "content": SEARCH_R1.prompt("Where is Timbuktu")}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Mali"]}},
        "extra_info": {"split": "train", "index": 0},
    }
    assert ids_of(out)[1:] == ["nq/train_0", "nq/train_1", "nq/train_2"]
    assert str(report) == f"{out}: 4 questions (1 atlas, 3 nq)"


def test_upstreams_own_file_comes_back_as_it_was(tmp_path: Path, out: Path) -> None:
    rows = [upstream(i, name, "train") for name in ("nq", "hotpotqa") for i in range(3)]
    prepared(out, write_parquet(tmp_path / "train.parquet", rows))
    made = rows_of(out)
    for i, (row, source) in enumerate(zip(made, rows, strict=True)):
        assert list(row) == [name for name in source if name != "metadata"]
        assert row["prompt"] == [{"role": "user", "content": SEARCH_R1.prompt(source["question"])}]
        assert row["extra_info"] == {"split": "train", "index": i}, "no two rows share an index"
        for name in ("question", "golden_answers", "data_source", "ability", "reward_model"):
            assert row[name] == source[name]
    again = out.with_name("again.parquet")
    prepared(again, out)
    assert rows_of(again) == made


def test_rows_are_written_in_groups(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_module, "ROWS_PER_GROUP", 4)
    prepared(out, seven_sets(tmp_path / "test.parquet", num_each=3))
    file = pq.ParquetFile(out)
    assert (file.num_row_groups, file.metadata.num_rows) == (6, 21)
    assert [row["extra_info"]["index"] for row in rows_of(out)] == list(range(21))


def test_json_lines_keep_hops_and_can_be_evaluated(tmp_path: Path) -> None:
    output = tmp_path / "mix.jsonl"
    write_lines(tmp_path / "atlas" / "questions-test.jsonl", ATLAS | {"id": "atlas-test-1"})
    seven_sets(tmp_path / "test.parquet")
    prepared(output, "atlas", "popqa", split="test", data_dir=tmp_path, data=str(tmp_path))
    assert rows_of(output)[0] == ATLAS | {"id": "atlas-test-1", "data_source": "atlas"}
    direct = load_questions("atlas,popqa", data_dir=tmp_path, data=str(tmp_path))
    assert load_questions(str(output)) == direct


def test_exported_runs_need_golden_answers(tmp_path: Path, out: Path) -> None:
    run = {"object": "research.run"}
    lines = [run_json(f"run_{i}", trajectory={"question": q}) | run for i, q in enumerate(["Known", "Unknown"])]
    runs = write_lines(tmp_path / "runs.jsonl", *lines)
    golden = write_lines(tmp_path / "golden.jsonl", {"question": "Known?", "golden_answers": ["yes"], "more": 1})
    report = prepared(out, runs, golden=golden, data_source="nq")
    assert [(row["id"], row["golden_answers"]) for row in rows_of(out)] == [("nq/run_0", ["yes"])]
    assert report.skipped == {"without golden answers": 1}
    with pytest.raises(DatasetError, match="no question is left to write; skipped: 2 without golden answers"):
        prepared(out.with_name("none.parquet"), runs)
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_repeated_duplicate_and_excluded_questions_are_counted(tmp_path: Path, out: Path) -> None:
    first = write_lines(tmp_path / "a.jsonl", *(flashrag(i, "nq", "train") for i in range(4)))
    other = flashrag(9, "nq", "train")
    second = write_lines(tmp_path / "b.jsonl", other | {"question": " NQ train  question 0?"}, other | {"id": "x"})
    tests = write_lines(tmp_path / "test.jsonl", flashrag(3, "nq", "train") | {"id": "another"})
    assert prepared(out, first, second).num_questions == 6
    report = prepared(out, first, second, first, dedupe=True, exclude=(str(tests),), force=True)
    assert report.skipped == {"excluded": 2, "duplicates": 1, "repeated": 3}
    assert report.by_source == {"searchr1": 4}
    assert "skipped: 2 excluded" in str(report)


def test_an_id_of_two_questions_is_an_error_that_names_the_row(tmp_path: Path, out: Path) -> None:
    line = flashrag(0, "nq", "train")
    path = write_lines(tmp_path / "a.jsonl", line, line | {"question": "another"})
    with pytest.raises(DatasetError, match=r"a\.jsonl, line 2: the id 'searchr1/train_0' is taken"):
        prepared(out, path)
    assert not out.exists()


def test_a_shuffle_depends_on_its_seed_alone(tmp_path: Path, out: Path) -> None:
    source = seven_sets(tmp_path / "test.parquet", num_each=20)
    made = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2), ("plain", None)):
        prepared(out.with_name(f"{name}.jsonl"), source, seed=seed)
        made[name] = ids_of(out.with_name(f"{name}.jsonl"))
    assert made["a"] == made["b"] != made["c"]
    assert sorted(made["a"]) == sorted(made["c"]) == sorted(made["plain"])
    assert len({name.partition("/")[0] for name in made["a"][:20]}) > 3, "sets are mixed"


def test_limits_count_after_the_shuffle(tmp_path: Path, out: Path) -> None:
    source = seven_sets(tmp_path / "test.parquet", num_each=20)
    report = prepared(out, source, seed=3, limit_each=5, limit=30)
    assert report.num_questions == 30
    assert max(report.by_source.values()) == 5
    numbers = [int(name.rpartition("_")[2]) for name in ids_of(out)]
    assert max(numbers) >= 5, "not the first five of each"
    few = prepared(out, source, limit=3, data_sources=frozenset({"MuSiQue"}), force=True)
    assert few.by_source == {"musique": 3}


def test_without_a_shuffle_a_limit_reads_no_further(tmp_path: Path, out: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", flashrag(0, "nq", "train"), "no question")
    assert prepared(out, path, limit=1).num_questions == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sources": ()}, "at least one source"),
        ({"output": "train.csv"}, r"must end in \.parquet or \.jsonl"),
        ({"limit": 0}, "at least 1"),
        ({"output": "train.jsonl", "verl": True}, "--verl has a place only in"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    config: dict[str, Any] = {"sources": ("atlas",), "output": "train.parquet"} | options
    config["output"] = tmp_path / config["output"]
    with pytest.raises(ConfigurationError, match=says):
        prepare(PrepareConfig(**config), progress=False)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_is_replaced_only_by_force_and_whole(tmp_path: Path, out: Path) -> None:
    source = write_lines(tmp_path / "a.jsonl", flashrag(0, "nq", "train"))
    prepared(out, source)
    with pytest.raises(ConfigurationError, match="--overwrite"):
        prepared(out, source)
    before = out.read_bytes()
    broken = write_lines(tmp_path / "b.jsonl", flashrag(1, "nq", "train"), [])
    with pytest.raises(DatasetError, match="line 2"):
        prepared(out, broken, force=True, seed=0)
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_upstreams_rows_can_be_loaded_and_split_by_source(tmp_path: Path, out: Path) -> None:
    """What verl's own loader does: read the whole file, take prompt and reward by their names."""
    root = flashrag_folder(tmp_path)
    prepared(out, "nq", "hotpotqa", data=str(root), seed=0)
    table = pq.read_table(out)
    assert Counter(table["data_source"].to_pylist()) == {"nq": 3, "hotpotqa": 3}
    assert {tuple(sorted(prompt[0])) for prompt in table["prompt"].to_pylist()} == {("content", "role")}
    targets = [model["ground_truth"]["target"] for model in table["reward_model"].to_pylist()]
    assert targets == table["golden_answers"].to_pylist()


def test_verls_reward_finds_its_data_sources(tmp_path: Path, out: Path) -> None:
    prepared(out, seven_sets(tmp_path / "test.parquet", num_each=1), verl=True)
    assert [row["data_source"] for row in rows_of(out)][:2] == ["searchR1_nq", "searchR1_triviaqa"]
    assert {question.data_source for question in load_questions(str(out))} == set(SETS)


@pytest.mark.process
def test_the_command(tmp_path: Path) -> None:
    source = seven_sets(tmp_path / "test.parquet")
    command = [sys.executable, "-m", "searchr1.cli", "data", "prepare", str(source), "--split", "test"]
    command += ["--only", "nq", "--only", "popqa", "--shuffle", "7", "--output", "out.parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out.parquet: 6 questions (3 nq, 3 popqa)\n", "")
    assert {row["extra_info"]["split"] for row in rows_of(tmp_path / "out.parquet")} == {"test"}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == "searchr1: out.parquet exists. Give --overwrite to replace it, or another --output\n"
