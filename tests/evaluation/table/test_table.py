"""The table in the paper's layout, and the paper's own numbers."""

import dataclasses
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from searchr1.data.sets import SETS
from searchr1.errors import ConfigurationError, DatasetError
from searchr1.evaluation.records import Record, RecordFile, read_records
from searchr1.evaluation.table.files import write_table
from searchr1.evaluation.table.paper import PaperModel, paper_rows
from searchr1.evaluation.table.plot import check_plotting
from searchr1.evaluation.table.table import build_table, table_of_files
from tests.evaluation.test_report import RECORD

GREEDY = {"temperature": 0.0, "model": "tiny"}


def record(id: str, *, right: bool, **changes: Any) -> Record:
    base = dataclasses.replace(
        RECORD, id=id, options=GREEDY, model="tiny", exact_match=right, sub_exact_match=right, method="rag"
    )
    return dataclasses.replace(base, **changes)


HOPS = [record("1", right=True), record("2", right=False), record("3", right=True, hops=2)]


def lines_of(markdown: str, name: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]
    return [row for row in rows if row[0] == name]


def test_hops_are_columns_where_there_are_no_sets() -> None:
    table = build_table(HOPS)
    assert table.columns == ("1 hop", "2 hops", "3 hops", "all")
    [row] = table.rows
    assert [row.cells[c].exact_match for c in ("1 hop", "2 hops", "all")] == [0.5, 1.0, pytest.approx(2 / 3)]
    assert "3 hops" not in row.cells
    shown = lines_of(table.to_markdown(), "RAG")
    assert shown[0] == ["RAG", "tiny, greedy", "0.500", "1.000", "–", "0.667"]
    assert len(shown) == 2  # exact match, sub-exact match


def test_sets_are_columns_and_the_average_is_over_sets() -> None:
    records = [
        record("1", right=True, data_source="nq"),
        record("2", right=False, data_source="nq"),
        record("3", right=True, data_source="searchR1_bamboogle"),
    ]
    table = build_table(records)
    assert table.columns == (*SETS, "average")
    [row] = table.rows
    assert (row.cells["nq"].num_questions, row.cells["bamboogle"].exact_match) == (2, 1.0)
    assert row.cells["average"].exact_match == 0.75
    assert (
        "| NQ | TriviaQA | PopQA | HotpotQA | 2WikiMultiHopQA | MuSiQue | Bamboogle | Average |" in table.to_markdown()
    )


def test_methods_stand_in_the_papers_order_whatever_came_first() -> None:
    records = [dataclasses.replace(HOPS[0], method=method) for method in (None, "rag", "ircot", "cot", "direct")]
    table = build_table(records)
    assert [row.name for row in table.rows] == ["Direct", "CoT", "IRCoT", "RAG", "Search-R1"]
    assert table.same_questions


def test_other_options_or_another_model_are_other_rows() -> None:
    sampled = dataclasses.replace(HOPS[0], options={**GREEDY, "temperature": 1.0, "seed": 3})
    larger = dataclasses.replace(HOPS[0], model="large", options={**GREEDY, "model": "large"})
    trained = dataclasses.replace(HOPS[0], options={**GREEDY, "baseline_format": "search-r1"})
    sources = [row.source for row in build_table([HOPS[0], sampled, larger, trained]).rows]
    assert sources == [
        "tiny, greedy",
        "tiny, temperature 1.0, seed 3",
        "large, greedy",
        "tiny, greedy, in Search-R1's format",
    ]


def test_rows_over_other_questions_are_marked() -> None:
    other = dataclasses.replace(HOPS[0], id="99", method="direct")
    table = build_table([*HOPS, other])
    assert not table.same_questions
    assert "not all asked the same questions" in table.to_markdown()
    assert "not all asked the same questions" not in build_table(HOPS).to_markdown()


def test_failed_runs_are_told_and_stay_in_their_row() -> None:
    failed = record("4", right=False, status="failed", model=None)
    table = build_table([failed, *HOPS])
    [row] = table.rows
    assert (row.num_failed, row.cells["all"].num_questions) == (1, 4)
    assert "1 failed runs count as wrong" in table.to_markdown()


def test_the_papers_numbers_stand_beside_ours_and_are_marked() -> None:
    records = [record("1", right=True, data_source="nq"), record("2", right=True, data_source="nq", method=None)]
    table = build_table(records, paper="qwen2.5-3b")
    names = [(row.name, row.is_paper) for row in table.rows]
    assert names.index(("RAG", False)) + 1 == names.index(("RAG", True))
    assert names.index(("Search-R1", False)) + 1 == names.index(("Search-R1 base, PPO", True))
    markdown = table.to_markdown()
    assert lines_of(markdown, "Direct") == [
        ["Direct", "paper, as transcribed", "0.106", "0.288", "0.108", "0.149", "0.244", "0.020", "0.024", "0.134"]
    ]
    assert len(lines_of(markdown, "RAG")) == 3  # the paper has no sub-exact match


def test_the_paper_has_no_atlas() -> None:
    with pytest.raises(ConfigurationError, match="seven sets"):
        build_table(HOPS, paper="qwen2.5-7b")


@pytest.mark.parametrize("model", ["qwen2.5-3b", "qwen2.5-7b"])
def test_the_papers_rows_average_to_what_stands_beside_them(model: PaperModel) -> None:
    rows = paper_rows(model)
    assert len(rows) == 12
    off = {row.name for row in rows if abs(fmean(row.exact_match.values()) - row.average) > 0.0011}
    assert off == ({"IRCoT"} if model == "qwen2.5-7b" else set())


def written(path: Path, records: list[Record]) -> Path:
    with RecordFile(path) as file:
        for one in records:
            file.append(one)
    return path


def test_files_are_combined(tmp_path: Path) -> None:
    one = written(tmp_path / "a.jsonl", HOPS[:2])
    two = written(tmp_path / "b.jsonl", [*HOPS[2:], dataclasses.replace(HOPS[0], method=None)])
    table = table_of_files([one, two])
    assert [(row.name, row.cells["all"].num_questions) for row in table.rows] == [("RAG", 3), ("Search-R1", 1)]
    with pytest.raises(ConfigurationError, match="answered twice by RAG"):
        table_of_files([one, one])


def test_a_gateways_records_carry_no_method(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [dataclasses.replace(HOPS[0], method=None), HOPS[1]])
    first, second = map(json.loads, path.read_text().splitlines())
    assert "method" not in first
    assert second["method"] == "rag"


def test_of_a_question_that_was_asked_again_the_good_run_counts(tmp_path: Path) -> None:
    failed = dataclasses.replace(HOPS[0], status="failed", exact_match=False)
    path = written(tmp_path / "a.jsonl", [failed, HOPS[0], HOPS[1]])
    with path.open("a") as file:
        file.write('{"id": "cut of')
    assert [(r.id, r.status) for r in read_records(path)] == [("1", "completed"), ("2", "completed")]


@pytest.mark.parametrize("content", ["", "{}\n", "not JSON\n"])
def test_files_that_hold_no_results_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(content)
    with pytest.raises(DatasetError, match=r"a\.jsonl"):
        read_records(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot be read"):
        table_of_files([tmp_path / "none.jsonl"])


def test_the_table_is_written_and_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    records = [record("1", right=True, data_source="nq"), record("2", right=False, data_source="nq", method="cot")]
    table = build_table(records, paper="qwen2.5-3b")
    out = tmp_path / "new" / "table.md"
    write_table(table, out, plot=True)
    assert out.read_text(encoding="utf-8") == table.to_markdown()
    value = json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))
    [ours] = [row for row in value["rows"] if row["name"] == "CoT" and row["source"] == "tiny, greedy"]
    assert ours["cells"]["nq"]["interval"] == [0.0, pytest.approx(0.793, abs=0.001)]
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_plot_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"[.]\[train\]"):
        check_plotting()
