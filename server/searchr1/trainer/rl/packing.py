"""Packing a batch for a CPU: one row without padding, in which what all rows begin with is computed once.

Rows of a batch begin with the same instruction, a fifth to a quarter of their tokens, and end at different lengths.
"""

from dataclasses import dataclass

import torch

from searchr1.engines.transformers.attention import Packing

REST_STEP = 16
"""Rows are cut to multiples of this many tokens behind the prefix: kernels are prepared once per shape."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch as one row of N tokens."""

    ids: torch.Tensor
    """[1, N] int64."""
    positions: torch.Tensor
    """[1, N] int64; of each token in its own row."""
    packing: Packing
    at: torch.Tensor
    """[n] int64; places in N of the tokens that predict, in the order of the batch's mask."""


def pack(ids: torch.Tensor, predicts: torch.Tensor) -> Packed:
    """Pack the tokens of ``ids`` [B, T] up to each row's last one that ``predicts`` [B, T].

    Rows that predict nothing are left out; of a batch of such rows one token stays.
    """
    lengths = [int(row.nonzero().max()) + 1 if row.any() else 0 for row in predicts]
    kept = [row for row, length in enumerate(lengths) if length] or [0]
    width = ids.shape[1]
    shortest = min(max(1, lengths[row]) for row in kept)
    prefix = _common(ids[kept, : shortest - 1]) if len(kept) > 1 else 0
    rests = [min(-(-max(1, lengths[row] - prefix) // REST_STEP) * REST_STEP, width - prefix) for row in kept]
    starts = torch.zeros(len(ids), dtype=torch.long)
    start = prefix
    for row, rest in zip(kept, rests, strict=True):
        starts[row] = start
        start += rest
    pieces = [ids[kept[0], :prefix], *(ids[row, prefix : prefix + rest] for row, rest in zip(kept, rests, strict=True))]
    positions = [torch.arange(prefix), *(torch.arange(prefix, prefix + rest) for rest in rests)]
    rows, columns = predicts.nonzero(as_tuple=True)
    at = torch.where(columns < prefix, columns, starts[rows] + columns - prefix)
    return Packed(torch.cat(pieces)[None], torch.cat(positions)[None], Packing(prefix, tuple(rests)), at)


def _common(ids: torch.Tensor) -> int:
    """Return the number of columns in which all rows of ``ids`` are alike, up to the first in which they are not."""
    alike = (ids == ids[0]).all(0)
    return int(alike.long().cumprod(0).sum())
