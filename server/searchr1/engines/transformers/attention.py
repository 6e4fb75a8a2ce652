"""Causal attention as plain matrix products: on a CPU in bfloat16 two to three times as fast as PyTorch's fused kernel.

It registers itself with transformers as ``causal_blocks``. Training batches only: every row starts at position 0 and is
padded on the right, so the mask is the causal triangle and nothing else. A model that is called with ``packing`` is
given one row that holds many.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

NAME = "causal_blocks"
NUM_BLOCKS = 2
"""Query blocks; each sees only the keys up to its own end, which skips most of the masked half."""


def causal_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
    """Return the attention of each position over itself and those before it.

    ``query`` has shape (rows, heads, tokens, head size), and so has the result. ``key`` and ``value`` may have fewer
    heads, each of which a group of query heads shares, and more tokens, which come before those of ``query``.
    """
    rows, heads, tokens, size = query.shape
    groups, shared = rows * key.shape[1], heads // key.shape[1]
    earlier = key.shape[2] - tokens
    k, v = (x.reshape(groups, earlier + tokens, size) for x in (key, value))
    # The queries of heads that share keys follow one another, so that no key is repeated.
    q = (query * scaling).reshape(groups, shared, tokens, size)
    bounds = [tokens * number // NUM_BLOCKS for number in range(NUM_BLOCKS + 1)]
    positions = torch.arange(earlier + tokens, device=q.device)
    outputs = []
    for start, end in pairwise(bounds):
        later = positions[earlier + start : earlier + end, None] < positions[: earlier + end]
        mask = torch.zeros(later.shape, dtype=q.dtype, device=q.device).masked_fill_(later, -torch.inf)
        queries = q[:, :, start:end].reshape(groups, shared * (end - start), size)
        scores = torch.baddbmm(mask.repeat(shared, 1), queries, k[:, : earlier + end].transpose(1, 2))
        outputs.append(torch.bmm(scores.softmax(-1), v[:, : earlier + end]).view(groups, shared, end - start, size))
    return torch.cat(outputs, dim=2).view(rows, heads, tokens, size)


@dataclass(frozen=True, slots=True)
class Packing:
    """How rows lie in one row of tokens: what they begin with alike comes once, then the rest of each."""

    prefix: int
    """Tokens that all rows begin with."""
    rests: tuple[int, ...]
    """Tokens of each row after these; at least one."""


def packed_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, packing: Packing
) -> torch.Tensor:
    """Return the causal attention of rows that are packed into one, each over the prefix and itself alone.

    Shapes are those of ``causal_attention``, with one row.
    """
    prefix, outputs = packing.prefix, []
    if prefix:
        outputs.append(causal_attention(query[:, :, :prefix], key[:, :, :prefix], value[:, :, :prefix], scaling))
    start = prefix
    for rest in packing.rests:
        own = slice(start, start + rest)
        k, v = (torch.cat([x[:, :, :prefix], x[:, :, own]], dim=2) for x in (key, value))
        outputs.append(causal_attention(query[:, :, own], k, v, scaling))
        start += rest
    return torch.cat(outputs, dim=2)


def _forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    packing: Packing | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    if packing is None:
        attended = causal_attention(query, key, value, scaling)
    else:
        attended = packed_attention(query, key, value, scaling, packing)
    return attended.transpose(1, 2).contiguous(), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, _no_mask)
