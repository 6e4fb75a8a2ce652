"""Demonstrations of answers without a search: one for each question that is not held out, in the served bytes."""

import json
import sys
from pathlib import Path

import pytest

from loadtests.seven import __main__ as command
from loadtests.seven.closed_book import write_closed_book
from searchr1.atlas.records import read_demonstrations
from searchr1.errors import DatasetError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import replay
from tests.seven.papers import QUESTIONS, write_questions


def write_held_out(folder: Path) -> Path:
    """Write a question that only differs in its letters' case and its mark from one of the others."""
    row = QUESTIONS[0] | {"id": "other", "question": "who keeps LIGHTHOUSE 0"}
    path = folder / "held.jsonl"
    path.write_text(json.dumps(row) + "\n", "utf-8")
    return path


def test_each_question_is_answered_at_once_unless_it_is_held_out(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    questions, held_out, output = write_questions(tmp_path), write_held_out(tmp_path), tmp_path / "out.jsonl"
    words = ["closed-book", "--questions", str(questions), "--held-out", str(held_out), "--output", str(output)]
    monkeypatch.setattr(sys, "argv", ["seven", *words])
    command.main()
    assert capsys.readouterr().out == f"{output}: 31 demonstrations; 1 held-out questions left out\n"
    demonstrations = list(read_demonstrations(output))
    assert "Who keeps lighthouse 0?" not in {one.question for one in demonstrations}
    rollout = replay(demonstrations[0], tokenizer)
    assert (rollout.answer, rollout.num_searches) == ("Keeper 1", 0)
    assert rollout.segments[-1].text == "<think> I can answer this. </think>\n<answer> Keeper 1 </answer>"


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    questions = write_questions(tmp_path)
    with pytest.raises(DatasetError, match="every question is held out"):
        write_closed_book(questions, [questions], tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
