"""Samples: finished rollouts as token rows, and batches of them as tensors.

Shapes: B trajectories, T tokens of the longest one (prompt and segments), padded on the right. A tensor with an entry
per prediction has shape [B, T-1] and belongs to ``ids[:, 1:]``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Self

import torch

from searchr1.loop.machine import Rollout
from searchr1.loop.types import Segment, Status, TokenIds


@dataclass(frozen=True, slots=True)
class Sample:
    """A trajectory with all that the losses need. Its token rows have one entry per id."""

    ids: TokenIds
    """The prompt, then what followed, cut at the trajectory limit."""
    loss_mask: tuple[bool, ...]
    """True where the policy sampled the token."""
    engine_logprobs: tuple[float, ...]
    """Nats, the engine's; 0 where ``has_engine_logprob`` is false."""
    has_engine_logprob: tuple[bool, ...]
    """False for text that was put in, for the few sampled tokens that the loop replaced at a turn's end, and where the
    engine told none."""
    num_prompt_tokens: int
    """Ids of the prompt, at the start of ``ids``."""
    reward: float
    """Reward of the whole rollout."""
    group: int
    """Number that siblings, the rollouts of one question, share."""
    policy_version: int
    """Version of the weights that sampled it."""
    status: Status
    """Status that the rollout ended with."""
    num_searches: int
    """Searches that were carried out."""
    num_turns: int
    """Completions that the policy sampled."""
    num_invalid: int
    """Turns without an action that could be taken."""

    @property
    def num_sampled_tokens(self) -> int:
        """Number of tokens that the policy sampled."""
        return sum(self.loss_mask)


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """A step's samples as tensors, one row each, in the order given."""

    ids: torch.Tensor
    """[B, T] int64."""
    loss_mask: torch.Tensor
    """[B, T] bool; true where the policy sampled the token."""
    response_mask: torch.Tensor
    """[B, T] bool; true on every token after the prompt, observations and retry texts included."""
    engine_logprobs: torch.Tensor
    """[B, T-1] float32; 0 where not known."""
    has_engine_logprob: torch.Tensor
    """[B, T-1] bool."""
    rewards: torch.Tensor
    """[B] float32."""
    groups: torch.Tensor
    """[B] int64."""

    def to(self, device: torch.device) -> Self:
        """Return this batch on ``device``."""
        return type(self)(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def sample_of(rollout: Rollout, *, reward: float, group: int, policy_version: int) -> Sample:
    """Return the sample of a finished rollout, cut at ``limits.max_trajectory_tokens`` tokens after the prompt.

    Raises:
        ValueError: the rollout is open, its prompt has no token to predict from, or the reward is not finite.
    """
    if rollout.status is None:
        raise ValueError("an open rollout is no sample yet")
    if not math.isfinite(reward):
        raise ValueError(f"a reward must be finite, not {reward}")
    num_prompt_tokens = len(rollout.segments[0].ids)
    if num_prompt_tokens == 0:
        raise ValueError("the first sampled token needs a prompt to be predicted from")
    end = num_prompt_tokens + rollout.limits.max_trajectory_tokens
    logprobs = list(chain.from_iterable(map(_known_logprobs, rollout.segments)))[:end]
    return Sample(
        ids=rollout.ids[:end],
        loss_mask=rollout.loss_mask[:end],
        engine_logprobs=tuple(0.0 if logprob is None else logprob for logprob in logprobs),
        has_engine_logprob=tuple(logprob is not None for logprob in logprobs),
        num_prompt_tokens=num_prompt_tokens,
        reward=reward,
        group=group,
        policy_version=policy_version,
        status=rollout.status,
        num_searches=rollout.num_searches,
        num_turns=rollout.num_turns,
        num_invalid=rollout.num_invalid,
    )


def collate(samples: Sequence[Sample], pad_id: int, *, num_tokens: int | None = None) -> SampleBatch:
    """Return samples as one batch, padded on the right to the longest of them, or to ``num_tokens`` where it is more.

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("a batch needs a sample")
    width = max(num_tokens or 0, *(len(sample.ids) for sample in samples))
    lengths = torch.tensor([len(sample.ids) for sample in samples])
    prompts = torch.tensor([sample.num_prompt_tokens for sample in samples])
    positions = torch.arange(width)
    return SampleBatch(
        ids=_rows([sample.ids for sample in samples], width, torch.int64, pad_id),
        loss_mask=_rows([sample.loss_mask for sample in samples], width, torch.bool, False),
        response_mask=(positions >= prompts[:, None]) & (positions < lengths[:, None]),
        engine_logprobs=_rows([sample.engine_logprobs for sample in samples], width, torch.float32, 0.0)[:, 1:],
        has_engine_logprob=_rows([sample.has_engine_logprob for sample in samples], width, torch.bool, False)[:, 1:],
        rewards=torch.tensor([sample.reward for sample in samples], dtype=torch.float32),
        groups=torch.tensor([sample.group for sample in samples], dtype=torch.int64),
    )


def micro_batches(samples: Sequence[Sample], max_tokens: int, *, at_least: int = 1) -> list[list[int]]:
    """Return positions in ``samples``, in batches of similar length and at most ``max_tokens`` tokens with padding.

    A sample that is longer than ``max_tokens`` gets a batch of its own. There are ``at_least`` batches, if there are
    as many samples: processes that compute in step need the same number each. The same samples always give the same
    batches; every position is in exactly one.
    """
    order = sorted(range(len(samples)), key=lambda position: len(samples[position].ids))
    batches: list[list[int]] = []
    for position in order:
        # Sorted by length, so that the newest is the longest of its batch.
        if batches and (len(batches[-1]) + 1) * len(samples[position].ids) <= max_tokens:
            batches[-1].append(position)
        else:
            batches.append([position])
    while len(batches) < min(at_least, len(samples)):
        largest = max(range(len(batches)), key=lambda number: len(batches[number]))
        half = len(batches[largest]) // 2
        batches[largest : largest + 1] = [batches[largest][:half], batches[largest][half:]]
    return batches


def _known_logprobs(segment: Segment) -> list[float | None]:
    """Return the engine's logprob of each of the segment's ids, or None."""
    known = (segment.logprobs or ())[: segment.num_verbatim]
    usable = [logprob if math.isfinite(logprob) else None for logprob in known]
    return usable + [None] * (len(segment.ids) - len(usable))


def _rows(rows: Sequence[Sequence[float]], width: int, dtype: torch.dtype, padding: float) -> torch.Tensor:
    out = torch.full((len(rows), width), padding, dtype=dtype)
    for number, row in enumerate(rows):
        out[number, : len(row)] = torch.tensor(row, dtype=dtype)
    return out
