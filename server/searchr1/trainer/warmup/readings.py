"""Readings as training samples: passages as the loop shows them, then what they say, quotes and values in the loss.

Which passage is spoken of next, and which fact, cannot be known; what it says can, by reading.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Passage
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import Samples, gather_samples, read_lines


@dataclass(frozen=True, slots=True)
class Reading:
    """Passages, and statements about them: a passage's number, its quote, the words up to the value, and the value."""

    passages: tuple[Passage, ...]
    statements: tuple[tuple[str, str, str, str], ...]


def read_readings(path: Path) -> Iterator[Reading]:
    """Yield the readings of a JSONL file as ``searchr1.demo`` writes it.

    Raises:
        CorpusError: a line is not a reading.
    """
    return read_lines(path, _parse, wanted="reading")


def encode_readings(readings: Iterable[Reading], tokenizer: Tokenizer, *, progress: bool = True) -> Samples:
    """Tokenize ``readings``; in the loss are each quote, each value and the token that ends it.

    Raises:
        CorpusError: there is none.
    """
    bar = tqdm(readings, desc="tokenizing readings", disable=not progress)
    return gather_samples((_encode(reading, tokenizer) for reading in bar), wanted="reading")


def _encode(reading: Reading, tokenizer: Tokenizer) -> tuple[list[int], list[bool]]:
    """Piece by piece: each begins with the space before a word, where the tokenizer splits a whole text too."""
    pieces = [(SEARCH_R1.observation(reading.passages), False), ("<think>", False)]
    for document, quote, given, value in reading.statements:
        pieces += [(f" {document}", False), (quote, True), (f" {given}", False), (f" {value}.", True)]
    answer = reading.statements[-1][-1]
    pieces += [(" This is the answer. </think>\n<answer>", False), (f" {answer} </answer>", True)]
    encoded = [(tokenizer.encode(text), in_loss) for text, in_loss in pieces]
    ids = [token for tokens, _ in encoded for token in tokens]
    mask = np.repeat([in_loss for _, in_loss in encoded], [len(tokens) for tokens, _ in encoded])
    return ids, mask.tolist()


def _parse(record: dict[str, Any]) -> Reading:
    passages = tuple(Passage("", p["title"], p["text"]) for p in record["passages"])
    return Reading(passages, tuple((s["document"], s["quote"], s["given"], s["value"]) for s in record["statements"]))
