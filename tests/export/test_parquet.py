"""The parquet rows: upstream's columns as upstream reads them, and the record without loss."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from searchr1.errors import ConfigurationError, DatasetError
from searchr1.export import parquet
from searchr1.export.run import ExportConfig, ExportReport, export
from searchr1.loop.profiles.registry import profile_named
from searchr1.loop.profiles.search_r1 import PROMPT
from searchr1_client.events import Run, Trajectory
from tests.export.records import QUESTION, a_run, run_json, write_lines


def table(tmp_path: Path, runs: list[dict[str, Any]], **more: Any) -> tuple[list[dict[str, Any]], ExportReport]:
    """The rows of an export of ``runs``."""
    source = write_lines(tmp_path / "runs.jsonl", runs)
    output = tmp_path / "out.parquet"
    report = export(ExportConfig(output=output, url="", input=source, **more), progress=False)
    rows: list[dict[str, Any]] = pq.read_table(output).to_pylist()
    return rows, report


def with_trajectory(run: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return run | {"trajectory": run["trajectory"] | changes}


def test_the_upstream_columns_are_upstreams(tmp_path: Path) -> None:
    [first, second], _ = table(tmp_path, [run_json("run_1"), run_json("run_2")], data_source="nq", split="test")
    upstream = {
        "id": "run_1",
        "question": QUESTION,
        "golden_answers": [],
        "data_source": "nq",
        "prompt": [{"role": "user", "content": PROMPT.replace("{question}", QUESTION + "?")}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": []}},
        "extra_info": {"split": "test", "index": 0},
    }
    assert {name: first[name] for name in upstream} == upstream
    assert list(first)[: len(upstream)] == list(upstream)
    assert second["extra_info"]["index"] == 1


def test_a_row_is_the_trajectory_without_loss(tmp_path: Path) -> None:
    [row], _ = table(tmp_path, [run_json()])
    run = a_run()
    assert Trajectory.model_validate(row, strict=True) == run.trajectory
    assert {name: row[name] for name in ("created", "model", "status", "answer", "error")} == {
        "created": run.created,
        "model": "demo",
        "status": "completed",
        "answer": "CFA franc",
        "error": None,
    }
    assert row["usage"] == run.usage.model_dump()
    assert pq.read_schema(tmp_path / "out.parquet").metadata[b"searchr1.schema_version"] == b"1"


def test_the_token_columns_join_the_segments(tmp_path: Path) -> None:
    [row], _ = table(tmp_path, [run_json()])
    assert row["num_prompt_tokens"] == 3
    assert row["token_ids"] == [1, 2, 3, 40, 50, 6, 7, 8, 150_000]
    assert row["loss_mask"] == [0, 0, 0, 1, 1, 0, 0, 0, 1]
    assert row["sampled_ids"] == [45, 150_000, 13]
    assert row["logprobs"] == [-0.125, -1.5, -1e-9]


def test_logprobs_are_null_unless_all_are_known(tmp_path: Path) -> None:
    run = run_json()
    run["trajectory"]["segments"][1]["logprobs"] = None
    [row], _ = table(tmp_path, [run])
    assert row["logprobs"] is None
    assert row["segments"][3]["logprobs"] == [-1.5, -1e-9]
    assert row["sampled_ids"] == [45, 150_000, 13]


def test_golden_answers_are_joined_by_the_question_that_was_asked(tmp_path: Path) -> None:
    golden = [
        {"id": "1", "question": f" {QUESTION}?", "golden_answers": ["CFA franc", "West African CFA franc"]},
        {"question": QUESTION, "golden_answers": ["CFA franc", "XOF"]},
    ]
    follow_up = with_trajectory(run_json("run_2", question=QUESTION), question="Earlier: … And in Niger?")
    path = write_lines(tmp_path / "golden.jsonl", golden)
    [known, unknown], report = table(tmp_path, [run_json("run_1"), follow_up], golden=path)
    answers = ["CFA franc", "West African CFA franc", "XOF"]
    assert known["golden_answers"] == answers
    assert known["reward_model"]["ground_truth"] == {"target": answers}
    assert unknown["reward_model"]["ground_truth"] == {"target": []}
    assert str(report).endswith("2 runs, 1 with golden answers")


@pytest.mark.parametrize("line", ["{", '{"question": "q"}', '{"question": "q", "golden_answers": []}'])
def test_a_bad_line_of_golden_answers_is_named(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "golden.jsonl", [line])
    with pytest.raises(DatasetError, match=r"golden\.jsonl, line 1: "):
        table(tmp_path, [run_json()], golden=path)


def test_both_profiles_have_the_trained_prompt_and_others_are_refused(tmp_path: Path) -> None:
    [row], _ = table(tmp_path, [with_trajectory(run_json(), profile="sanitized")])
    assert row["prompt"][0]["content"].endswith(f"Question: {QUESTION}?\n")
    with pytest.raises(ConfigurationError, match="run_7 has the profile 'other'"):
        table(tmp_path, [with_trajectory(run_json("run_7"), profile="other")], force=True)


@pytest.mark.parametrize("name", ["search-r1", "search-r1+sanitized", "research", "research+sanitized"])
def test_a_row_has_the_messages_of_its_runs_profile(tmp_path: Path, name: str) -> None:
    [row], _ = table(tmp_path, [with_trajectory(run_json(), profile=name)])
    assert row["prompt"] == profile_named(name.removesuffix("+sanitized")).messages(QUESTION)


def test_rows_are_written_in_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 2)
    rows, _ = table(tmp_path, [run_json(f"run_{i}") for i in range(5)])
    assert [row["id"] for row in rows] == [f"run_{i}" for i in range(5)]
    assert [row["extra_info"]["index"] for row in rows] == list(range(5))
    assert pq.ParquetFile(tmp_path / "out.parquet").num_row_groups == 3


def test_a_run_that_failed_before_its_first_token_is_a_row_too(tmp_path: Path) -> None:
    empty = run_json(status="failed", answer=None, error={"code": "engine_error", "message": "died"})
    empty["trajectory"] |= {"segments": empty["trajectory"]["segments"][:1], "searches": []}
    [row], _ = table(tmp_path, [empty])
    assert row["error"] == {"code": "engine_error", "message": "died"}
    assert (row["token_ids"], row["sampled_ids"], row["logprobs"]) == ([1, 2, 3], [], None)


def test_a_field_that_no_column_can_hold_is_an_error() -> None:
    for annotation in (dict[str, int], int | str, Run | list[int]):
        with pytest.raises(TypeError, match="no parquet column"):
            parquet.arrow_type(annotation)
