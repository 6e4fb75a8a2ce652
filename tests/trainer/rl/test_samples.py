"""Samples of finished rollouts, and batches of them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from searchr1.loop.machine import Rollout
from searchr1.loop.types import Limits, Passage, Status
from searchr1.trainer.rl.samples import Sample, collate, micro_batches, sample_of

FUSED = 1000
"""A token that spells ``>.``: it reaches past a closing tag."""
END = 1001
"""A token that spells nothing."""
PAD = 0
PASSAGES = [Passage("1", "T", "x")]


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def decode(ids: Sequence[int]) -> str:
    spelled = {FUSED: ">.", END: ""}
    return "".join(spelled[i] if i in spelled else chr(i) for i in ids)


def opened(**limits: int) -> Rollout:
    return Rollout(prompt="Ask", prompt_ids=encode("Ask"), encode=encode, decode=decode, limits=Limits(**limits))


def write(rollout: Rollout, ids: Sequence[int], logprobs: Sequence[float] | None) -> None:
    rollout.receive_text(decode(ids), ids, logprobs)
    rollout.end_completion("stop")


def searched(**limits: int) -> Rollout:
    """``<search>q</search>``, its last token one that reaches past the tag, then ``<answer>a</answer>`` and an end."""
    rollout = opened(**limits)
    first = [*encode("<search>q</search"), FUSED]
    write(rollout, first, [-0.1] * len(first))
    rollout.receive_passages(PASSAGES)
    second = [*encode("<answer>a</answer>"), END]
    write(rollout, second, [-0.2] * len(second))
    return rollout


def sample(rollout: Rollout) -> Sample:
    return sample_of(rollout, reward=0.5, group=3, policy_version=7)


def of_length(length: int, group: int = 3) -> Sample:
    return replace(
        sample(searched()),
        ids=tuple(range(1, length + 1)),
        loss_mask=(False,) + (True,) * (length - 1),
        engine_logprobs=(0.0,) + (-1.0,) * (length - 1),
        has_engine_logprob=(False,) + (True,) * (length - 1),
        num_prompt_tokens=1,
        group=group,
    )


def test_a_sample_is_the_trajectory_with_its_masks() -> None:
    rollout = searched()
    got = sample(rollout)
    observation = rollout.segments[2]
    lengths = [3, 18, len(observation.ids), 18]
    assert got.ids == rollout.ids
    assert got.loss_mask == (False,) * 3 + (True,) * 18 + (False,) * lengths[2] + (True,) * 18
    assert got.num_sampled_tokens == 36
    # The token that reached past the tag was replaced, so no logprob is its own; an end token is not in the trajectory.
    assert got.has_engine_logprob == (False,) * 3 + (True,) * 17 + (False,) * (1 + lengths[2]) + (True,) * 18
    assert got.engine_logprobs == tuple(
        0.0 if not known else -0.1 if position < 21 else -0.2 for position, known in enumerate(got.has_engine_logprob)
    )
    assert (got.reward, got.group, got.policy_version, got.num_prompt_tokens) == (0.5, 3, 7, 3)
    assert (got.status, got.num_searches, got.num_turns, got.num_invalid) == (Status.COMPLETED, 1, 2, 0)


@pytest.mark.parametrize("limit", [1, 17, 20, 40, 10_000])
def test_the_cut_counts_from_the_end_of_the_prompt(limit: int) -> None:
    whole, cut = sample(searched()), sample(searched(max_trajectory_tokens=limit))
    end = 3 + limit
    assert cut.ids == whole.ids[:end]
    assert cut.loss_mask == whole.loss_mask[:end]
    assert cut.engine_logprobs == whole.engine_logprobs[:end]
    assert cut.has_engine_logprob == whole.has_engine_logprob[:end]


def test_an_engine_without_logprobs_leaves_flags_and_no_numbers() -> None:
    rollout = opened()
    write(rollout, encode("<answer>a</answer>"), None)
    got = sample(rollout)
    assert sum(got.loss_mask) == 18
    assert not any(got.has_engine_logprob)
    assert not any(got.engine_logprobs)


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_logprob_that_is_no_number_counts_as_unknown(bad: float) -> None:
    rollout = opened()
    ids = encode("<answer>a</answer>")
    write(rollout, ids, [-1.0, bad] + [-1.0] * (len(ids) - 2))
    got = sample(rollout)
    assert got.has_engine_logprob[3:6] == (True, False, True)
    assert got.engine_logprobs[3:6] == (-1.0, 0.0, -1.0)


def test_a_rollout_that_failed_before_its_first_token_is_a_sample_of_its_prompt() -> None:
    rollout = opened()
    rollout.stop(Status.FAILED)
    got = sample(rollout)
    assert got.ids == tuple(encode("Ask"))
    assert got.num_sampled_tokens == 0
    assert got.status is Status.FAILED


def test_what_is_no_sample_is_refused() -> None:
    with pytest.raises(ValueError, match="open"):
        sample(opened())
    with pytest.raises(ValueError, match="finite"):
        sample_of(searched(), reward=math.nan, group=0, policy_version=0)
    empty = Rollout(prompt="", prompt_ids=(), encode=encode)
    empty.stop(Status.CANCELLED)
    with pytest.raises(ValueError, match="prompt"):
        sample(empty)


def test_a_batch_holds_each_sample_in_its_row() -> None:
    short, long = of_length(4, group=5), sample(searched())
    batch = collate([short, long], PAD)
    width = len(long.ids)
    assert batch.ids.shape == batch.loss_mask.shape == batch.response_mask.shape == (2, width)
    assert batch.engine_logprobs.shape == batch.has_engine_logprob.shape == (2, width - 1)
    assert batch.ids[0].tolist() == [1, 2, 3, 4] + [PAD] * (width - 4)
    assert batch.loss_mask[0].tolist() == [False, True, True, True] + [False] * (width - 4)
    assert batch.ids[1].tolist() == list(long.ids)
    assert batch.loss_mask[1].tolist() == list(long.loss_mask)
    assert batch.response_mask[1].tolist() == [False] * 3 + [True] * (width - 3)
    assert batch.response_mask[0].tolist() == [False] + [True] * 3 + [False] * (width - 4)
    assert batch.engine_logprobs[0].tolist() == [-1.0] * 3 + [0.0] * (width - 4)
    assert batch.engine_logprobs[1].tolist() == pytest.approx(list(long.engine_logprobs[1:]))
    assert batch.has_engine_logprob[1].tolist() == list(long.has_engine_logprob[1:])
    assert batch.rewards.tolist() == [0.5, 0.5]
    assert batch.groups.tolist() == [5, 3]
    assert batch.ids.dtype == batch.groups.dtype == torch.int64


def test_a_batch_can_be_wider_than_its_longest_sample_but_not_narrower() -> None:
    assert collate([of_length(4)], PAD, num_tokens=9).ids[0].tolist() == [1, 2, 3, 4, 0, 0, 0, 0, 0]
    assert collate([of_length(4)], PAD, num_tokens=2).ids.shape == (1, 4)
    with pytest.raises(ValueError, match="sample"):
        collate([], PAD)


def test_a_batch_moves_as_a_whole() -> None:
    moved = collate([of_length(4)], PAD).to(torch.device("meta"))
    assert {moved.ids.device.type, moved.has_engine_logprob.device.type, moved.groups.device.type} == {"meta"}


def test_passes_by_hand() -> None:
    samples = [of_length(length) for length in (9, 3, 4, 20, 3, 5)]
    # Shortest first: 3 and 3 and 4 fill 3 x 4 = 12; 5 and 9 would fill 18; 20 is too long for any.
    assert micro_batches(samples, 12) == [[1, 4, 2], [5], [0], [3]]
    assert micro_batches(samples, 18) == [[1, 4, 2], [5, 0], [3]]
    assert micro_batches([], 12) == []


@pytest.mark.parametrize("max_tokens", [1, 50, 200, 100_000])
@pytest.mark.parametrize("at_least", [1, 7, 60, 1000])
def test_passes_hold_every_sample_once_within_the_budget(max_tokens: int, at_least: int) -> None:
    random = torch.Generator().manual_seed(0)
    samples = [of_length(length) for length in torch.randint(2, 60, (60,), generator=random).tolist()]
    batches = micro_batches(samples, max_tokens, at_least=at_least)
    assert sorted(position for batch in batches for position in batch) == list(range(60))
    assert len(batches) >= min(at_least, 60)
    assert all(
        len(batch) == 1 or len(batch) * max(len(samples[position].ids) for position in batch) <= max_tokens
        for batch in batches
    )
    assert micro_batches(samples, max_tokens, at_least=at_least) == batches
