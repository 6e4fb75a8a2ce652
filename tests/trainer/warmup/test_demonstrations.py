from dataclasses import replace
from pathlib import Path

import pytest

from searchr1.atlas.records import Demonstration, read_demonstrations
from searchr1.errors import CorpusError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import Samples, encode_demonstrations, replay


def test_mask_covers_exactly_the_sampled_tokens(demonstration: Demonstration, tokenizer: Tokenizer) -> None:
    rollout = replay(demonstration, tokenizer)

    expected: list[int] = []
    for turn in demonstration.turns:
        expected += tokenizer.encode(turn.text)
    masked = [i for i, sampled in zip(rollout.ids, rollout.loss_mask, strict=True) if sampled]
    assert masked == expected
    unmasked = tokenizer.decode(tuple(i for i, m in zip(rollout.ids, rollout.loss_mask, strict=True) if not m))
    assert unmasked.endswith(
        '\n\n<information>Doc 1(Title: "Timbuktu") Timbuktu is in Mali. <answer> no </answer></information>\n\n'
    )
    assert "Question: In which country is Timbuktu?" in unmasked


def test_a_demonstration_without_an_answer_is_refused(demonstration: Demonstration, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match="does not reach an answer"):
        replay(replace(demonstration, turns=demonstration.turns[:1]), tokenizer)


def test_samples_survive_a_save(data_dir: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    source = data_dir / "demonstrations-train.jsonl"
    samples = encode_demonstrations(read_demonstrations(source), tokenizer, max_tokens=4000, progress=False)
    samples.save(tmp_path / "samples.npz")
    loaded = Samples.load(tmp_path / "samples.npz")
    assert len(loaded) == 22
    assert (loaded.ids == samples.ids).all()
    assert (loaded.loss_mask == samples.loss_mask).all()
    assert (loaded.offsets == samples.offsets).all()
    first = replay(next(read_demonstrations(source)), tokenizer)
    assert tuple(loaded.ids[: loaded.offsets[1]]) == first.ids


def test_long_demonstrations_are_left_out(data_dir: Path, tokenizer: Tokenizer) -> None:
    with pytest.raises(CorpusError, match="no demonstration of at most 10 tokens"):
        encode_demonstrations(
            read_demonstrations(data_dir / "demonstrations-train.jsonl"), tokenizer, max_tokens=10, progress=False
        )
