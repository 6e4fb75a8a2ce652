"""Exports from files: what is taken, what is refused, and what is left behind."""

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import ConfigurationError, DatasetError
from searchr1.export import run as run_module
from searchr1.export.files import read_runs
from searchr1.export.run import ExportConfig, ExportReport, export
from searchr1.export.selection import Selection
from searchr1_client.events import Run
from tests.export.records import a_run, run_json, segment, write_lines

NOWHERE = "http://127.0.0.1:9"


def exported(source: Path, output: Path, **more: Any) -> ExportReport:
    return export(ExportConfig(output=output, url=NOWHERE, input=source, **more), progress=False)


def ids_of(path: Path) -> list[str]:
    return [run.id for run in read_runs(path)]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_only_whole_records_are_taken_once(tmp_path: Path, name: str) -> None:
    lines: list[dict[str, Any] | str] = [
        run_json("run_1"),
        run_json("run_2", status="running", answer=None, trajectory=None),
        "",
        run_json("run_3", trajectory=None),
        run_json("run_1"),
        run_json("run_4", status="exhausted", answer=None),
    ]
    report = exported(write_lines(tmp_path / "runs.jsonl", lines), tmp_path / "deep" / name)
    assert report.num_runs == 2
    assert str(report).endswith(": 2 runs; skipped: 1 not ended, 1 without a trajectory, 1 repeated")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [name]


def test_json_lines_hold_the_same_runs(tmp_path: Path) -> None:
    runs = [run_json("run_b"), run_json("run_a", answer="naïve\u2028\n")]
    exported(write_lines(tmp_path / "runs.jsonl", runs), tmp_path / "out.jsonl")
    assert list(read_runs(tmp_path / "out.jsonl")) == [Run.model_validate(run) for run in runs]


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "runs.jsonl, line 2: "),
        ('{"id": "run_2"}', "line 2: 'created'"),
        (run_json(trajectory=run_json()["trajectory"] | {"schema_version": 2}), "line 2: 'trajectory.schema_version'"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_left(tmp_path: Path, name: str, bad: Any, says: str) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [run_json("run_1"), bad])
    with pytest.raises(DatasetError, match=says):
        exported(source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"loss_mask": [1]}, "segment 1: 2 token ids, 1 mask bits"),
        ({"logprobs": [-1.0]}, "segment 1: 2 sampled ids, 1 logprobs"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    bad = run_json("run_9")
    bad["trajectory"]["segments"][1] = segment("completion", 1, [4, 5], sampled_ids=[4, 5]) | change
    with pytest.raises(DatasetError, match=f"run run_9, {says}"):
        exported(write_lines(tmp_path / "runs.jsonl", [bad]), tmp_path / "out.parquet")


def test_an_input_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.jsonl cannot be read"):
        exported(tmp_path / "none.jsonl", tmp_path / "out.jsonl")


def test_nothing_to_export_is_an_error_that_says_why(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [run_json(trajectory=None)])
    with pytest.raises(DatasetError, match=r"nothing to export; skipped: 1 without a trajectory$"):
        exported(source, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_an_output_that_is_there_is_kept_unless_forced(tmp_path: Path, name: str) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [run_json()])
    output = tmp_path / name
    output.write_text("precious")
    with pytest.raises(ConfigurationError, match="--overwrite"):
        exported(source, output)
    assert output.read_text() == "precious"
    exported(source, output, force=True)
    assert output.read_bytes() != b"precious"


def test_a_failure_leaves_the_output_that_was_there(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [run_json(), "{"])
    output = write_lines(tmp_path / "out.jsonl", [run_json("run_0")])
    with pytest.raises(DatasetError):
        exported(source, output, force=True)
    assert ids_of(output) == ["run_0"]
    assert set(tmp_path.iterdir()) == {source, output}


def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path, on_bad: object) -> Iterator[Run]:
        yield a_run()
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "read_runs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        exported(tmp_path / "runs.jsonl", tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


def test_an_output_can_be_its_own_input(tmp_path: Path) -> None:
    runs = write_lines(tmp_path / "runs.jsonl", [run_json("run_1"), run_json("run_2", status="failed")])
    exported(runs, runs, force=True, selection=Selection(statuses=frozenset({"completed"})))
    assert ids_of(runs) == ["run_1"]


def test_append_adds_what_is_missing(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    first = write_lines(tmp_path / "first.jsonl", [run_json("run_1")])
    assert exported(first, output, append=True).num_kept == 0
    later = write_lines(tmp_path / "later.jsonl", [run_json("run_2"), run_json("run_1")])
    report = exported(later, output, append=True)
    assert (report.num_runs, report.num_kept) == (2, 1)
    assert ids_of(output) == ["run_1", "run_2"]
    assert exported(later, output, append=True).num_runs == 2


def test_filters_and_limit(tmp_path: Path) -> None:
    lines = [
        run_json("run_1", created=99),
        run_json("run_2", created=100),
        run_json("run_3", created=101, status="failed"),
        run_json("run_4", created=102),
    ]
    source = write_lines(tmp_path / "runs.jsonl", lines)

    def taken(**filters: Any) -> list[str]:
        exported(source, tmp_path / "out.jsonl", force=True, selection=Selection(**filters))
        return ids_of(tmp_path / "out.jsonl")

    assert taken(since=100) == ["run_2", "run_3", "run_4"]
    assert taken(statuses=frozenset({"completed"}), limit=2) == ["run_1", "run_2"]
    assert taken(ids=("run_4", "run_1")) == ["run_1", "run_4"]


def test_the_command_lines_filters_are_read() -> None:
    parsed = Selection.parse(ids=["a", "b", "a"], statuses=["failed"], since="1970-01-02", limit=3)
    assert parsed == Selection(ids=("a", "b"), statuses=frozenset({"failed"}), since=86_400.0, limit=3)
    assert Selection.parse(ids=(), statuses=(), since="1970-01-01T02:00:01+02:00", limit=None).since == 1.0
    with pytest.raises(ConfigurationError, match="'done' does not exist; give one of completed"):
        Selection.parse(ids=(), statuses=["done"], since=None, limit=None)
    with pytest.raises(ConfigurationError, match="--since 'yesterday'"):
        Selection.parse(ids=(), statuses=(), since="yesterday", limit=None)


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("out.csv", {}, "must end in .jsonl or .parquet"),
        ("out.jsonl", {"golden": Path("golden.jsonl")}, "--golden"),
        ("out.parquet", {"append": True}, "--append"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, name: str, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        exported(write_lines(tmp_path / "runs.jsonl", [run_json()]), tmp_path / name, **more)


def test_an_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "runs.jsonl", [run_json()])
    with pytest.raises(ConfigurationError, match="is a folder"):
        exported(source, _folder(tmp_path / "folder.jsonl"), force=True)
    with pytest.raises(ConfigurationError, match="cannot be written: "):
        exported(source, source / "out.jsonl")


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    source = write_lines(tmp_path / "runs.jsonl", [run_json()])
    with pytest.raises(ConfigurationError, match=f"{name} cannot be written: No space left"):
        exported(source, tmp_path / name)
    assert list(tmp_path.iterdir()) == [source]


def test_without_pyarrow_the_user_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "searchr1.export.parquet", raising=False)
    source = write_lines(tmp_path / "runs.jsonl", [run_json()])
    with pytest.raises(ConfigurationError, match="needs pyarrow"):
        exported(source, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == [source]


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
