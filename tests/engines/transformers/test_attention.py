import itertools

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from searchr1.engines.transformers.attention import causal_attention
from searchr1.trainer.warmup.drill import drill_batch
from searchr1.trainer.warmup.model import ModelShape, build_model


@pytest.mark.parametrize("tokens", [1, 2, 7, 64])
def test_equals_pytorchs_attention(tokens: int) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 3, tokens, 8).unbind()
    expected = scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(causal_attention(query, key, value, 8**-0.5), expected, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 7, 64])
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_may_share_keys(tokens: int, kv_heads: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(2, 6, tokens, 8)
    key, value = torch.randn(2, 2, kv_heads, tokens, 8).unbind()
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    assert torch.allclose(causal_attention(query, key, value, 8**-0.5), expected, atol=1e-5)


def test_the_model_gives_the_same_logits_as_with_pytorchs_attention() -> None:
    model = build_model(ModelShape(512, 128, 64, 2, 2), end_id=2, pad_id=0, seed=0)
    ids = torch.randint(3, 512, (2, 30))
    with torch.inference_mode():
        ours = model(ids, use_cache=False).logits
        model.set_attn_implementation("sdpa")
        theirs = model(ids, use_cache=False).logits
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_the_drill_asks_only_for_what_came_before() -> None:
    batch = drill_batch(3, rows=2, num_special=3, vocab_size=64, seed=0)
    assert int(batch.ids[batch.loss_mask].min()) >= 3
    for ids, mask in zip(batch.ids.tolist(), batch.loss_mask.tolist(), strict=True):
        for at in (i for i, counted in enumerate(mask) if counted):
            pairs = set(itertools.pairwise(ids[:at]))
            assert (ids[at - 1], ids[at]) in pairs
    again = drill_batch(3, rows=2, num_special=3, vocab_size=64, seed=0)
    assert torch.equal(batch.ids, again.ids)
