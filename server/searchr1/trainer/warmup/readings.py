"""Readings as training samples: passages as the loop shows them, then statements about them.

Quotes and values are in the loss: reading tells them. The choice of the next passage and fact is not.
"""

from collections.abc import Iterable

import numpy as np
from tqdm import tqdm

from searchr1.atlas.records import Reading
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import Samples, gather_samples


def encode_readings(readings: Iterable[Reading], tokenizer: Tokenizer, *, progress: bool = True) -> Samples:
    """Tokenize ``readings``; in the loss are each quote, each value and the token that ends it.

    Raises:
        CorpusError: there is none.
    """
    bar = tqdm(readings, desc="tokenizing readings", disable=not progress)
    return gather_samples((_encode(reading, tokenizer) for reading in bar), wanted="reading")


def _encode(reading: Reading, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Tokenize piece by piece: each begins with the space before a word, where the tokenizer splits a text anyway."""
    pieces = [(SEARCH_R1.observation(reading.passages), False), ("<think>", False)]
    for stated in reading.statements:
        pieces += [(f" {stated.document}", False), (stated.quote, True)]
        pieces += [(f" {stated.given}", False), (f" {stated.value}.", True)]
    answer = reading.statements[-1].value
    pieces += [(" This is the answer. </think>\n<answer>", False), (f" {answer} </answer>", True)]
    encoded = [(tokenizer.encode(text), in_loss) for text, in_loss in pieces]
    ids = [token for tokens, _ in encoded for token in tokens]
    mask = np.repeat([in_loss for _, in_loss in encoded], [len(tokens) for tokens, _ in encoded])
    return ids, mask.tolist()
