"""Traces: what is read from recorded runs, what is drawn, and that files keep it."""

import gzip
import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests import traces
from loadtests.traces import SHAPES, RunTrace, TurnTrace, counter, drawn, read, recorded, resampled, write

SEARCH = "<think> who? </think> <search> capital of {place} </search>"
FOUND = '\n\n<information>Doc 1(Title: "{place}") Its capital is old.</information>\n\n'
ANSWER = "<think> aha </think> <answer> {place} </answer>"


def record(place: str, num_searches: int) -> dict[str, str]:
    response = (SEARCH + FOUND).format(place=place) * num_searches + ANSWER.format(place=place)
    return {"prompt": f"Answer the question. Question: {place}?", "response": response}


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("packed", [False, True])
def test_recorded_runs_become_lengths_and_queries(tmp_path: Path, packed: bool) -> None:
    lines = "".join(json.dumps(record(*of)) + "\n" for of in (("Mali", 1), ("Chad", 2), ("Peru", 0)))
    path = tmp_path / ("runs.jsonl.gz" if packed else "runs.jsonl")
    path.write_bytes(gzip.compress(lines.encode()) if packed else lines.encode())
    mali, chad, peru = recorded(tmp_path, words)
    searched = TurnTrace(words(SEARCH.format(place="x")), words(FOUND.format(place="x")), "capital of Mali")
    answered = TurnTrace(words(ANSWER.format(place="x")))
    assert mali == RunTrace("run-0", 5, 4, (searched, answered))
    assert [turn.query for turn in chad.turns] == ["capital of Chad", "capital of Chad", ""]
    assert peru.turns == (answered,)
    assert mali.last_footprint == 5 + searched.num_sampled + searched.passage_tokens + answered.num_sampled


def test_a_file_keeps_a_trace(tmp_path: Path) -> None:
    runs = drawn(SHAPES["hotpot"], 20, seed=1)
    write(tmp_path / "trace.jsonl", runs)
    assert read(tmp_path / "trace.jsonl") == runs


@pytest.mark.parametrize("name", SHAPES)
def test_drawn_runs_have_the_means_of_their_shape(name: str) -> None:
    shape = SHAPES[name]
    runs = drawn(shape, 4000, seed=1, num_questions=4000)
    searches = [turn for run in runs for turn in run.turns[:-1]]
    assert sum(turn.passage_tokens for turn in searches) / len(searches) == pytest.approx(shape.passages, rel=0.05)
    assert sum(turn.num_sampled for turn in searches) / len(searches) == pytest.approx(shape.sampled, rel=0.1)
    assert {len(run.turns) - 1 for run in runs} == set(shape.num_searches)
    assert all(run.prompt_tokens > run.shared_tokens for run in runs)


def test_some_questions_are_asked_often_and_search_for_the_same() -> None:
    runs = drawn(SHAPES["hotpot"], 2000, seed=1)
    asked = Counter(run.turns for run in runs)
    assert asked.most_common(1)[0][1] > 100
    assert len({run.run for run in runs}) == 2000
    again = resampled(runs[:50], 500, seed=2)
    assert {run.turns for run in again} <= {run.turns for run in runs[:50]}
    assert len({run.run for run in again}) == 500


def test_without_a_tokenizer_characters_are_counted() -> None:
    assert counter(None)("a" * 36) == 10


def test_the_command_writes_a_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "trace.jsonl"
    monkeypatch.setattr(sys, "argv", ["traces", "--like", "growing", "--num", "30", "--out", str(out)])
    traces.main()
    assert len(read(out)) == 30
    assert "30 runs of 4.00 turns" in capsys.readouterr().out
