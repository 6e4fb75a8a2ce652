"""Rows that decode together say what each would say alone; sampling follows the distribution it is given."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from searchr1.engines.transformers.batching import LENGTH_STEP, DecodeBatch, sample

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "initializer_range": 0.3,
}


def model(kind: str, num_key_value_heads: int) -> Any:
    torch.manual_seed(3)
    untyped: Any = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM}[kind]
    config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
    return untyped(config(**SIZES, num_key_value_heads=num_key_value_heads)).eval()


def ids(length: int, seed: int) -> list[int]:
    return torch.randint(97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.inference_mode()
def whole(reference: Any, sequence: list[int]) -> torch.Tensor:
    """The logits after ``sequence``, in one pass and without any cache."""
    logits: torch.Tensor = reference(torch.tensor([sequence]), use_cache=False).logits[0, -1]
    return logits


@pytest.mark.parametrize(("kind", "num_key_value_heads"), [("qwen2", 4), ("qwen2", 2), ("llama", 1)])
def test_rows_of_any_length_join_and_leave_without_changing_each_other(kind: str, num_key_value_heads: int) -> None:
    reference, batch = model(kind, num_key_value_heads), DecodeBatch(model(kind, num_key_value_heads))
    rows = [ids(length, seed=length) for length in (1, 40, 7, 7, LENGTH_STEP - 1)]
    rows[3] = list(rows[2])

    def step() -> None:
        logits = batch.step([row[-1] for row in rows])
        torch.testing.assert_close(logits, torch.stack([whole(reference, row) for row in rows]), rtol=1e-4, atol=1e-4)
        for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
            row.append(token)

    batch.admit([row[:-1] for row in rows])
    for _ in range(3):
        step()
    batch.drop(1)
    rows[1] = rows.pop()
    step()
    late = [ids(2, seed=20 + number) for number in range(20)]
    batch.admit([row[:-1] for row in late])
    rows += late
    for _ in range(2):
        step()
    while rows:
        batch.drop(0)
        last = rows.pop()
        if rows:
            rows[0] = last
            step()
    assert batch.num_rows == 0
    rows = [ids(3, seed=9)]
    batch.admit([rows[0][:-1]])
    step()


def test_counts_the_bytes_of_a_token() -> None:
    # Two layers, keys and values, two heads of 16 in float32.
    assert DecodeBatch(model("qwen2", 2)).bytes_per_token() == 2 * 2 * 2 * 16 * 4


def test_sampling_follows_temperature_and_top_p() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]])
    many = 4000
    uniforms = ((torch.arange(many) + 0.5) / many).tolist()
    rows = logits.expand(many, -1)
    for temperature, top_p, kept in ((1.0, 1.0, [0, 1, 2, 3]), (0.5, 1.0, [0, 1, 2, 3]), (2.0, 0.7, [0, 2])):
        tokens, logprobs = sample(rows, [temperature] * many, [top_p] * many, uniforms)
        wanted = torch.zeros(4)
        wanted[kept] = (logits[0] / temperature).softmax(-1)[kept]
        found = torch.bincount(torch.tensor(tokens), minlength=4) / many
        torch.testing.assert_close(found, wanted / wanted.sum(), rtol=0, atol=1e-3)
        torch.testing.assert_close(torch.tensor(logprobs), logits[0].log_softmax(-1)[tokens])


def test_each_row_has_settings_of_its_own() -> None:
    logits = torch.tensor([[0.0, 1.0, 0.9]] * 4)
    tokens, _ = sample(logits, [0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1e-9], [0.999, 0.999, 0.0, 0.999])
    assert tokens == [1, 2, 0, 1]
    # Drawn in the order of likelihood where the unlikely are cut off, in that of the ids elsewhere.
    assert sample(logits[:2], [1.0, 1.0], [0.7, 1.0], [0.999, 0.999])[0] == [2, 2]
    assert sample(logits[:2], [1.0, 1.0], [0.7, 1.0], [0.0, 0.0])[0] == [1, 0]
