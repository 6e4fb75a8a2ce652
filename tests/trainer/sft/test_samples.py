"""Samples out of each kind of file: the same ids and masks, and what is told of files that do not fit."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from searchr1.atlas.records import Demonstration
from searchr1.errors import CorpusError, DatasetError
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Limits
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.sft.samples import gather, read_samples
from searchr1.trainer.warmup.demonstrations import replay


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def samples(path: Path, tokenizer: Tokenizer, limits: Limits | None = None) -> list[tuple[list[int], list[bool]]]:
    read = read_samples(path, tokenizer, SEARCH_R1, limits or Limits())
    return [(list(ids), list(mask)) for ids, mask in read]


def run_of(demonstration: Demonstration, tokenizer: Tokenizer) -> dict[str, Any]:
    """The demonstration as an exported run."""
    segments = [
        {
            "kind": segment.kind,
            "turn": segment.turn,
            "text": segment.text,
            "token_ids": segment.ids,
            "loss_mask": [int(segment.sampled)] * len(segment.ids),
        }
        for segment in replay(demonstration, tokenizer).segments
    ]
    return {"id": "run_1", "object": "research.run", "trajectory": {"schema_version": 1, "segments": segments}}


def test_the_three_forms_say_the_same(tmp_path: Path, tokenizer: Tokenizer, demonstration: Demonstration) -> None:
    rollout = replay(demonstration, tokenizer)
    expected = (list(rollout.ids), list(rollout.loss_mask))
    row = {"id": "a", "token_ids": rollout.ids, "loss_mask": [int(flag) for flag in rollout.loss_mask]}
    assert samples(write(tmp_path / "rows.jsonl", row), tokenizer) == [expected]
    assert samples(write(tmp_path / "runs.jsonl", run_of(demonstration, tokenizer)), tokenizer) == [expected]
    assert samples(write(tmp_path / "made.jsonl", demonstration.to_row()), tokenizer) == [expected]


def test_only_what_the_policy_writes_is_in_the_loss(
    tmp_path: Path, tokenizer: Tokenizer, demonstration: Demonstration
) -> None:
    [(ids, mask)] = samples(write(tmp_path / "made.jsonl", demonstration.to_row()), tokenizer)
    learned = tokenizer.decode(tuple(token for token, flag in zip(ids, mask, strict=True) if flag))
    assert learned == "".join(turn.text for turn in demonstration.turns)


def test_an_observation_is_cut_where_it_will_be_when_served(
    tmp_path: Path, tokenizer: Tokenizer, demonstration: Demonstration
) -> None:
    path = write(tmp_path / "made.jsonl", demonstration.to_row())
    [(whole, _)], [(cut, mask)] = (samples(path, tokenizer, Limits(max_observation_tokens=n)) for n in (500, 10))
    assert len(whole) - len(cut) == len(tokenizer.encode(replay(demonstration, tokenizer).segments[2].text)) - 10
    read = tokenizer.decode(tuple(token for token, flag in zip(cut, mask, strict=True) if not flag))
    assert "</information>" not in read[-60:]


def test_long_samples_are_left_out_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"token_ids": [5] * length, "loss_mask": [0] + [1] * (length - 1)} for length in (4, 9, 6)]
    path = write(tmp_path / "rows.jsonl", *rows)
    gathered, left_out = gather([path, path], tokenizer, SEARCH_R1, Limits(), max_tokens=6, progress=False)
    assert (gathered.lengths.tolist(), left_out) == ([4, 6, 4, 6], 2)
    with pytest.raises(CorpusError, match="no sample of at most 3 tokens"):
        gather([path], tokenizer, SEARCH_R1, Limits(), max_tokens=3, progress=False)


def test_a_row_that_teaches_nothing_is_passed_over(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = [{"token_ids": [5, 6], "loss_mask": mask} for mask in ([0, 0], [1, 0], [0, 1])]
    assert samples(write(tmp_path / "rows.jsonl", *rows), tokenizer) == [([5, 6], [False, True])]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"token_ids": [1, 2], "loss_mask": [1]}], "line 1: 2 token_ids, and 1 in loss_mask"),
        ([{"token_ids": [1, 99_999], "loss_mask": [0, 1]}], "line 1: the id 99999 is none of the model's"),
        ([{"token_ids": [1, 2], "loss_mask": [0, 1]}, {"token_ids": [1, 2]}], "line 2: 'loss_mask'"),
        ([{"token_ids": [1, 2], "loss_mask": [0, 2]}], "line 1: 'loss_mask.1'"),
        ([{"token_ids": [-1, 2], "loss_mask": [0, 1]}], "line 1: 'token_ids.0'"),
        ([{"trajectory": None}], "line 1: 'trajectory'"),
        ([{"question": "q"}], "line 1: samples are one of"),
        ([[1, 2]], "samples are one of"),
        ([], "holds no sample"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, tokenizer: Tokenizer, rows: Sequence[object], says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        samples(write(tmp_path / "rows.jsonl", *rows), tokenizer)
