"""The copying drill: names of random tokens that come again and again, in another order each time.

A small model must read a name that it has never seen and write it down again. Nothing but attention to what followed
the same token before (induction) can do that, and demonstrations teach it slowly, since most of their tokens need no
copying. Every token of the vocabulary takes part, so that also rare ones are copied well.
"""

import numpy as np

from searchr1.trainer.warmup.batches import TokenBatch, pad

NUM_NAMES = 12
NUM_ROUNDS = 3
NAME_TOKENS = (2, 8)
"""Least and most tokens of a name, the upper bound left out."""


def drill_batch(number: int, *, rows: int, num_special: int, vocab_size: int, seed: int) -> TokenBatch:
    """Return drill batch ``number``; a pure function of its arguments.

    Ids below ``num_special`` never occur. Each row names 12 names in each of 3 rounds, one random token between names.
    In the loss are a name's tokens after its first, from the second round on: what can be known from what came before.
    """
    random = np.random.default_rng((seed, 1, number))
    ids, masks = zip(*(_row(random, num_special, vocab_size) for _ in range(rows)), strict=True)
    return pad(ids, masks, pad_id=0)


def _row(random: np.random.Generator, num_special: int, vocab_size: int) -> tuple[list[int], list[bool]]:
    names = [random.integers(num_special, vocab_size, random.integers(*NAME_TOKENS)).tolist() for _ in range(NUM_NAMES)]
    ids: list[int] = []
    mask: list[bool] = []
    for round_number in range(NUM_ROUNDS):
        for which in random.permutation(NUM_NAMES):
            name = names[which]
            ids += [int(random.integers(num_special, vocab_size)), *name]
            mask += [False, False, *[round_number > 0] * (len(name) - 1)]
    return ids, mask
