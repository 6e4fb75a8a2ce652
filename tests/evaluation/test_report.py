"""The printed report, and the interval beside the score."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from searchr1.cli.main import app
from searchr1.evaluation.records import Record, RecordFile
from searchr1.evaluation.report import CLOSED_BOOK, SEARCH, Report, print_report, summarize, wilson_interval

RECORD = Record(
    id="1",
    question="q",
    golden_answers=("a",),
    hops=1,
    kind="capital",
    options={},
    extractor="own",
    status="completed",
    wall_s=0.5,
    answer="a",
    prediction="a",
    exact_match=True,
    sub_exact_match=True,
    model="demo",
    turns=2,
    searches=1,
)
WRONG = replace(
    RECORD, id="2", hops=2, kind="currency", status="exhausted", answer=None, exact_match=False, searches=4, turns=5
)
FAILED = replace(WRONG, id="3", status="failed", searches=0, turns=0, sub_exact_match=False)
GREEDY = {"temperature": 0.0}


def printed(report: Report, *, by_kind: bool = False) -> str:
    out = io.StringIO()
    print_report(report, by_kind=by_kind, console=Console(file=out, width=80))
    return out.getvalue()


def cells(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip().startswith(name))
    return line.strip().removeprefix(name).split()


def report(*, closed: bool = False) -> Report:
    records = [RECORD, WRONG, FAILED]
    searching = summarize(SEARCH, records, options=GREEDY, extractor="own", num_asked=3, wall_s=1.25)
    none_right = [replace(record, exact_match=False, searches=0) for record in records]
    closed_book = summarize(CLOSED_BOOK, none_right, options=GREEDY, extractor="own", num_asked=3, wall_s=2.0)
    return Report("atlas", "test", "http://x", searching, closed_book if closed else None)


def test_scores_overall_and_by_hops() -> None:
    text = printed(report())
    assert "atlas test: 3 questions, greedy (temperature 0)" in text
    assert "model demo; answers read by the own extractor" in text
    assert cells(text, "all") == ["3", "0.333", "0.667", "2.50", "66.7%"]
    assert cells(text, "1 hop") == ["1", "1.000", "1.000", "1.00", "0.0%"]
    assert cells(text, "2 hops") == ["2", "0.000", "0.500", "4.00", "100.0%"]
    assert cells(text, "turns per run") == ["3.50"]
    assert cells(text, "statuses") == ["completed", "1,", "exhausted", "1,", "failed", "1"]
    assert "1.2 s for 3 questions" in text
    assert "capital" not in text
    assert "closed" not in text


def test_kinds_on_request_and_closed_book_beside_it() -> None:
    text = printed(report(closed=True), by_kind=True)
    assert cells(text, "all") == ["3", "0.333", "0.667", "2.50", "66.7%", "0.000", "0.667"]
    assert cells(text, "capital")[:2] == ["1", "1.000"]
    assert cells(text, "searches per run") == ["2.50", "0.00"]
    assert max(map(len, text.splitlines())) <= 80


def test_names_from_files_and_servers_steer_no_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2J\x1b]0;t\x07\x9b31m\u202e[red]name"
    record = replace(RECORD, kind=hostile, model=hostile, data_source=hostile, options={hostile: hostile})
    records = [record, replace(record, id="2", data_source=f"other{hostile}")]
    summary = summarize(SEARCH, records, options=GREEDY, extractor="own", num_asked=2, wall_s=0.0)
    text = printed(Report(hostile, "test", "http://x", summary, None), by_kind=True)
    with RecordFile(tmp_path / "results.jsonl") as file:
        for one in records:
            file.append(one)
    text += CliRunner().invoke(app, ["eval", "table", str(tmp_path / "results.jsonl")]).output
    assert text.count("[red]name") >= 7
    assert not set(text) & set("\x1b\x07\x9b\u202e")


def test_a_report_without_a_single_run_is_still_a_report() -> None:
    failed = [replace(FAILED, model=None)]
    summary = summarize(SEARCH, failed, options={}, extractor="own", num_asked=1, wall_s=0.0)
    text = printed(Report("my.jsonl", "test", "http://x", summary, None))
    assert "my.jsonl: 1 questions, at the server's own temperature" in text
    assert "unknown (no run came back)" in text
    assert cells(text, "turns per run") == ["0.00"]


@pytest.mark.parametrize(
    ("right", "total", "expected"), [(300, 500, (0.556, 0.642)), (0, 10, (0.0, 0.278)), (10, 10, (0.722, 1.0))]
)
def test_wilson_interval(right: int, total: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(right, total) == pytest.approx(expected, abs=5e-4)
