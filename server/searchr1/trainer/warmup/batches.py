"""Batches of samples of similar length: which samples form batch number ``n`` is a pure function of (seed, n)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from searchr1.trainer.warmup.demonstrations import Samples
from searchr1.trainer.widths import padded_width

POOL_BATCHES = 32
"""Batches whose shuffled samples are sorted by length together: little padding, still well mixed."""


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Samples padded on the right to at least the longest of them. One sample per row: rows never see each other."""

    ids: torch.Tensor
    """Shape (samples, tokens), int64."""
    loss_mask: torch.Tensor
    """Shape (samples, tokens), bool; false on padding."""


class BatchPlan:
    """Cuts ``samples`` into batches of ``batch_size``, epoch after epoch, each epoch in another order.

    Resuming needs no position but the batch number.
    """

    def __init__(self, samples: Samples, *, batch_size: int, pad_id: int, seed: int) -> None:
        if len(samples) < batch_size:
            raise ValueError(f"{len(samples)} samples do not fill one batch of {batch_size}")
        self._samples, self._batch_size, self._pad_id, self._seed = samples, batch_size, pad_id, seed
        self._epoch_rows = lru_cache(maxsize=1)(self._rows_of_epoch)
        self.batches_per_epoch = len(samples) // batch_size

    def rows(self, number: int) -> npt.NDArray[np.int64]:
        """Return the sample numbers of batch ``number``, shape (batch_size,), shortest first."""
        epoch, place = divmod(number, self.batches_per_epoch)
        batch: npt.NDArray[np.int64] = self._epoch_rows(epoch)[place]
        return batch

    def batch(self, number: int, *, rank: int = 0, world_size: int = 1) -> TokenBatch:
        """Return the share of process ``rank`` in batch ``number``: every ``world_size``-th row."""
        return batch_of(self._samples, self.rows(number)[rank::world_size], pad_id=self._pad_id)

    def _rows_of_epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._samples))[: self.batches_per_epoch * self._batch_size]
        lengths = self._samples.lengths
        pool = POOL_BATCHES * self._batch_size
        batches = []
        for start in range(0, len(order), pool):
            rows = order[start : start + pool]
            batches.append(rows[np.argsort(lengths[rows], kind="stable")].reshape(-1, self._batch_size))
        batched = np.concatenate(batches)
        for start in range(0, len(batched), POOL_BATCHES):
            random.shuffle(batched[start : start + POOL_BATCHES])
        return batched


def batch_of(samples: Samples, rows: npt.NDArray[np.int64], *, pad_id: int) -> TokenBatch:
    """Pad the samples numbered ``rows`` into one batch."""
    spans = [slice(samples.offsets[row], samples.offsets[row + 1]) for row in rows]
    return pad([samples.ids[span] for span in spans], [samples.loss_mask[span] for span in spans], pad_id=pad_id)


def pad(ids: Sequence[npt.ArrayLike], masks: Sequence[npt.ArrayLike], *, pad_id: int) -> TokenBatch:
    """Pad rows of unequal lengths into one batch: the ``ids`` of each row, and its mask of those in the loss."""
    lengths = [np.size(row) for row in ids]
    width = padded_width(max(lengths))
    padded = np.full((len(lengths), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(lengths), width), dtype=np.bool_)
    for row, length in enumerate(lengths):
        padded[row, :length] = ids[row]
        mask[row, :length] = masks[row]
    return TokenBatch(torch.from_numpy(padded), torch.from_numpy(mask))
