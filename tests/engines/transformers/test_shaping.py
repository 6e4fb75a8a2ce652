"""Shaped logits against transformers' own processors, and against the formulas of vLLM's penalties."""

from typing import Any

import pytest
import torch
from transformers import MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TopKLogitsWarper

from searchr1.engines.base import SamplingParams, Shaping
from searchr1.engines.transformers.completion import Completion
from searchr1.engines.transformers.shaping import shaped

LOGITS = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0, -2.0])
PROMPT, SAMPLED = (0, 1), (2, 2, 4)


def shape(temperature: float = 1.0, **shaping: float) -> torch.Tensor:
    params = SamplingParams(9, temperature=temperature, shaping=Shaping(**shaping))  # type: ignore[arg-type]
    sequence = Completion(PROMPT, params, 9, priority=0, number=0)
    sequence.ids += SAMPLED
    plain = Completion(PROMPT, SamplingParams(9), 9, priority=0, number=1)
    logits = torch.stack([LOGITS, LOGITS])
    both = shaped(logits, [plain, sequence])
    assert torch.equal(logits, torch.stack([LOGITS, LOGITS]))
    assert torch.equal(both[0], LOGITS)
    return both[1]


def test_without_shaping_nothing_is_copied() -> None:
    logits = LOGITS[None]
    assert shaped(logits, [Completion(PROMPT, SamplingParams(9), 9, priority=0, number=0)]) is logits


@pytest.mark.parametrize("penalty", [0.5, 1.1, 2.0])
def test_a_repetition_penalty_is_that_of_transformers_over_prompt_and_completion(penalty: float) -> None:
    ids = torch.tensor([[*PROMPT, *SAMPLED]])
    torch.testing.assert_close(
        shape(repetition_penalty=penalty), RepetitionPenaltyLogitsProcessor(penalty)(ids, LOGITS[None])[0]
    )


@pytest.mark.parametrize("top_k", [1, 3, 6, 100])
def test_top_k_is_that_of_transformers(top_k: int) -> None:
    wanted = TopKLogitsWarper(top_k)(torch.tensor([[0]]), LOGITS[None])[0]
    assert torch.equal(shape(top_k=top_k), wanted)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("min_p", [0.05, 0.3, 1.0])
def test_min_p_is_that_of_transformers_at_its_temperature(min_p: float, temperature: float) -> None:
    warper: Any = MinPLogitsWarper(min_p)  # It wants types that no tensor is declared to have.
    warped = warper(torch.tensor([[0]]), LOGITS[None] / temperature)[0]
    found = shape(temperature, min_p=min_p)
    assert torch.equal(found.isinf(), warped.isinf())
    assert torch.equal(found[~found.isinf()], LOGITS[~found.isinf()])


def test_frequency_and_presence_count_the_completion_alone() -> None:
    found = shape(frequency_penalty=0.5, presence_penalty=-0.25)
    torch.testing.assert_close(LOGITS - found, torch.tensor([0.0, 0.0, 0.75, 0.0, 0.25, 0.0]))
