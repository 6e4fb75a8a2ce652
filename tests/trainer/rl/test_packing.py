"""Packed batches: which tokens they keep and share, and that a model computes the same on them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from searchr1.engines.transformers.attention import Packing, causal_attention, packed_attention
from searchr1.trainer.rl.packing import REST_STEP, pack
from searchr1.trainer.rl.policy import Critic, load_policy, token_stats
from tests.support.tiny_model import write_tiny_model

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def batch(prefix: int, lengths: list[int], width: int = 90) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows that begin alike, and a mask that ends with each row's last token."""
    random = torch.Generator().manual_seed(prefix + sum(lengths))
    ids = torch.randint(10, 290, (len(lengths), width), generator=random)
    ids[:, :prefix] = ids[0, :prefix]
    mask = torch.rand(ids.shape, generator=random) < 0.3
    for row, length in enumerate(lengths):
        mask[row, length:] = False
        mask[row, length - 1 : length] = True
    mask[:, 0] = False
    return ids, mask


def test_every_token_that_predicts_is_where_it_says() -> None:
    ids, mask = batch(20, [40, 61, 33])
    packed = pack(ids, mask)
    assert packed.packing.prefix == 20
    assert all(rest % REST_STEP == 0 for rest in packed.packing.rests)
    assert packed.ids.shape == packed.positions.shape == (1, 20 + sum(packed.packing.rests))
    rows, columns = mask.nonzero(as_tuple=True)
    assert torch.equal(packed.ids[0, packed.at], ids[rows, columns])
    assert torch.equal(packed.positions[0, packed.at], columns)
    assert packed.ids.numel() < ids.numel() / 2


@pytest.mark.parametrize(
    ("prefix", "lengths"),
    [(0, [40, 61]), (20, [40, 61, 33]), (30, [30, 60]), (1, [3, 4]), (9, [50, 0, 70]), (0, [70]), (90, [90, 90])],
)
@pytest.mark.parametrize("with_critic", [False, True])
def test_a_model_computes_the_same_on_it(model: Path, prefix: int, lengths: list[int], with_critic: bool) -> None:
    ids, mask = batch(prefix, lengths)
    loaded: Any
    if with_critic:
        loaded = Critic(model, CPU, dtype=torch.float32)
        torch.nn.init.normal_(loaded.head.weight)

        def compute() -> torch.Tensor:
            found: torch.Tensor = loaded(ids, mask)
            return found
    else:
        loaded = load_policy(model, CPU)

        def compute() -> torch.Tensor:
            return torch.stack(token_stats(loaded, ids, mask, dtype=torch.float32))

    found = {}
    # Not sdpa: on a CPU with AMX, its own gradients of a query err by 1.5e-4 where they cancel out.
    for implementation in ("causal_blocks", "eager"):
        (loaded.base if with_critic else loaded).set_attn_implementation(implementation)
        loaded.zero_grad()
        out = compute()
        torch.autograd.backward(out.square().sum())
        grads = [parameter.grad.clone() for parameter in loaded.parameters()]
        found[implementation] = [out.detach(), *grads]
    for one, other in zip(found["causal_blocks"], found["eager"], strict=True):
        assert float((one - other).norm()) <= 1e-4 * float(other.norm()) + 1e-5


def test_rows_that_predict_nothing_leave_one_token() -> None:
    ids, mask = batch(20, [40, 61])
    packed = pack(ids, torch.zeros_like(mask))
    assert packed.packing == Packing(0, (REST_STEP,))
    assert len(packed.at) == 0


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_of_packed_rows_is_that_of_each(kv_heads: int) -> None:
    torch.manual_seed(0)
    packing = Packing(5, (3, 8, 1))
    query = torch.randn(1, 4, 17, 8)
    key, value = torch.randn(2, 1, kv_heads, 17, 8).unbind()
    packed = packed_attention(query, key, value, 0.3, packing)
    start = 5
    for rest in packing.rests:
        at = [*range(5), *range(start, start + rest)]
        alone = scaled_dot_product_attention(
            query[:, :, at], key[:, :, at], value[:, :, at], is_causal=True, scale=0.3, enable_gqa=True
        )
        torch.testing.assert_close(packed[:, :, at], alone)
        start += rest


def test_queries_may_come_after_what_has_been_read() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, 12, 8).unbind()
    whole = scaled_dot_product_attention(query, key, value, is_causal=True)
    torch.testing.assert_close(causal_attention(query[:, :, 7:], key, value, 8**-0.5), whole[:, :, 7:])
