from dataclasses import replace
from pathlib import Path

import pytest

from searchr1.atlas.records import Demonstration, read_demonstrations
from searchr1.errors import CorpusError
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import Samples, encode_demonstrations, replay, with_first_turns


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


def test_more_processes_tokenize_the_same_samples(data_dir: Path, tokenizer: Tokenizer) -> None:
    source = data_dir / "demonstrations-train.jsonl"
    one, two = (
        encode_demonstrations(
            read_demonstrations(source), tokenizer, max_tokens=4000, num_processes=number, progress=False
        )
        for number in (1, 2)
    )
    assert (one.ids == two.ids).all()
    assert (one.loss_mask == two.loss_mask).all()
    assert (one.offsets == two.offsets).all()


@pytest.mark.parametrize(("share", "max_tokens"), [(1.0, 10_000), (0.0, 1)])
def test_cut_samples_end_after_what_is_sampled_first(
    data_dir: Path, tokenizer: Tokenizer, share: float, max_tokens: int
) -> None:
    demonstrations = list(read_demonstrations(data_dir / "demonstrations-train.jsonl"))
    whole = encode_demonstrations(demonstrations, tokenizer, max_tokens=4000, progress=False)
    cut = with_first_turns(whole, share, max_tokens=max_tokens, seed=0)
    assert len(cut) == len(whole)
    for number, demonstration in enumerate(demonstrations):
        ids, mask = (array[cut.offsets[number] : cut.offsets[number + 1]] for array in (cut.ids, cut.loss_mask))
        assert (ids == whole.ids[whole.offsets[number] :][: len(ids)]).all()
        assert tokenizer.decode(tuple(ids[mask].tolist())) == demonstration.turns[0].text


def test_samples_that_are_not_cut_stay_whole(data_dir: Path, tokenizer: Tokenizer) -> None:
    demonstrations = list(read_demonstrations(data_dir / "demonstrations-train.jsonl"))
    whole = encode_demonstrations(demonstrations, tokenizer, max_tokens=4000, progress=False)
    same = with_first_turns(whole, 0.0, max_tokens=4000, seed=0)
    assert (same.ids == whole.ids).all()
    some = with_first_turns(whole, 0.5, max_tokens=4000, seed=0)
    assert len(whole.ids) > len(some.ids) > len(with_first_turns(whole, 1.0, max_tokens=4000, seed=0).ids)
