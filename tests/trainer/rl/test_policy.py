"""Logprobs, entropies and values: those of a plain computation over all logits, where tokens were sampled."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from searchr1.demo.bundle import CHECKPOINT
from searchr1.errors import ConfigurationError
from searchr1.trainer.rl import policy
from searchr1.trainer.rl.policy import Critic, load_policy, token_stats

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Any:
    return load_policy(CHECKPOINT, CPU)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(10, 2000, (3, 40), generator=random)
    mask = torch.rand(3, 40, generator=random) < 0.4
    mask[2] = False
    return ids, mask


def test_they_are_those_of_the_whole_logits(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "CHUNK_TOKENS", 7)
    ids, mask = batch()
    plain: Any = AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    with torch.no_grad():
        logprobs = plain(input_ids=ids).logits[:, :-1].log_softmax(-1)
    wanted = logprobs.gather(-1, ids[:, 1:, None])[..., 0]
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    stats = token_stats(model, ids, mask, dtype=torch.float32)
    at = mask[:, 1:]
    assert torch.allclose(stats.logprobs[at], wanted[at], atol=1e-4)
    assert torch.allclose(stats.entropy[at], entropy[at], atol=1e-4)
    assert not stats.logprobs[~at].any()
    assert not stats.entropy[~at].any()


def test_padding_changes_nothing(model: Any) -> None:
    ids, mask = batch()
    short = token_stats(model, ids[:, :30], mask[:, :30], dtype=torch.float32)
    padded_ids, padded_mask = ids.clone(), mask.clone()
    padded_ids[:, 30:], padded_mask[:, 30:] = 0, False
    padded = token_stats(model, padded_ids, padded_mask, dtype=torch.float32)
    assert torch.allclose(short.logprobs, padded.logprobs[:, :29], atol=1e-4)


def test_the_gradient_comes_from_sampled_tokens_alone(model: Any) -> None:
    ids, mask = batch()
    model.zero_grad()
    (token_stats(model, ids, torch.zeros_like(mask)).logprobs.sum() + 0 * model.lm_head.weight.sum()).backward()
    assert not any(p.grad is not None and p.grad.any() for p in model.parameters())
    torch.autograd.backward(token_stats(model, ids, mask).logprobs.sum())
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    model.zero_grad()


def test_a_fresh_critic_expects_nothing_and_can_learn() -> None:
    ids, mask = batch()
    critic = Critic(CHECKPOINT, CPU)
    values = critic(ids, mask)
    assert values.shape == (3, 39)
    assert not values.any()
    torch.autograd.backward(values[mask[:, 1:]].sum())
    assert critic.head.weight.grad is not None
    assert critic.head.weight.grad.any()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no model"):
        load_policy(tmp_path, CPU)
