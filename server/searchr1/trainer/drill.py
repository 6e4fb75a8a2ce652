"""The copying drill: names of random tokens that come again and again, in another order each time.

A small model must read a name that it has never seen and write it down again. Nothing but attention to what followed
the same token before (induction) can do that, and demonstrations teach it slowly, since most of their tokens need no
copying. Every token of the vocabulary takes part, so that also rare ones are copied well.

Where names begin alike or repeat themselves (Honduran and Honduras, Pago Pago), what followed the same token before is
ambiguous, and only more context tells. So each name stands behind a key of its own, always the same, and some names
are made of parts of others or say a part twice.
"""

import numpy as np
import torch

from searchr1.trainer.batches import Batch

NUM_NAMES = 12
NUM_ROUNDS = 3
NAME_TOKENS = (2, 8)
"""Least and most tokens of a name, the upper bound left out."""
ALIKE = 0.4
"""Share of names that begin like an earlier one."""
DOUBLED = 0.15
"""Share of names that say some of their tokens twice."""


def drill_batch(number: int, *, rows: int, num_special: int, vocab_size: int, seed: int) -> Batch:
    """Drill batch ``number``; a pure function of its arguments.

    Ids below ``num_special`` never occur. Each row has 12 names in each of 3 rounds, a key before each. In the loss are
    the names' tokens from the second round on: what can be known from what came before.
    """
    random = np.random.default_rng((seed, 1, number))
    ids, masks = zip(*(_row(random, num_special, vocab_size) for _ in range(rows)), strict=True)
    width = max(map(len, ids))
    padded = np.zeros((rows, width), dtype=np.int64)
    mask = np.zeros((rows, width), dtype=np.bool_)
    for row in range(rows):
        padded[row, : len(ids[row])] = ids[row]
        mask[row, : len(ids[row])] = masks[row]
    return Batch(torch.from_numpy(padded), torch.from_numpy(mask))


def _row(random: np.random.Generator, num_special: int, vocab_size: int) -> tuple[list[int], list[bool]]:
    def tokens(count: int) -> list[int]:
        return [int(token) for token in random.integers(num_special, vocab_size, count)]

    keys = random.choice(np.arange(num_special, vocab_size), NUM_NAMES, replace=False).tolist()
    names: list[list[int]] = []
    for _ in range(NUM_NAMES):
        name = tokens(int(random.integers(*NAME_TOKENS)))
        if names and random.random() < ALIKE:
            other = names[int(random.integers(len(names)))]
            name = other[: int(random.integers(1, len(other) + 1))] + name[: NAME_TOKENS[1] // 2]
        if random.random() < DOUBLED:
            part = int(random.integers(1, 3))
            name = name[:part] + name
        names.append(name)
    ids: list[int] = []
    mask: list[bool] = []
    for round_number in range(NUM_ROUNDS):
        for which in random.permutation(NUM_NAMES):
            ids += [keys[which], *names[which]]
            mask += [False, *[round_number > 0] * len(names[which])]
    return ids, mask
