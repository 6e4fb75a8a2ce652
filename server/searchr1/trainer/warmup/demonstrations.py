"""Demonstrations as training samples: the text of a rollout becomes token ids and a loss mask through the loop itself.

A demonstration is replayed through the same state machine that serves, so a sample's bytes are the served bytes: each
segment tokenized alone, observations cut as in serving, the mask true on what the policy would have sampled.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from searchr1.errors import CorpusError
from searchr1.loop.machine import Rollout
from searchr1.loop.types import Finish, Generate, Limits, Passage, Search
from searchr1.rollout import start_rollout
from searchr1.tokenizer import Tokenizer

RENAMED = "-swapped"
"""How the ids of renamed demonstrations end."""


@dataclass(frozen=True, slots=True)
class DemonstratedTurn:
    """What the policy should generate in one turn, and what its search then returned."""

    text: str
    passages: tuple[Passage, ...]
    """Empty for a turn that answers."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One question and a whole rollout that answers it."""

    question: str
    turns: tuple[DemonstratedTurn, ...]
    renamed: bool = False
    """Its entities have other names than in the world, so that it can only be read, not known."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Tokenized demonstrations, one after the other in flat arrays; sample ``i`` is ``offsets[i]:offsets[i + 1]``."""

    ids: npt.NDArray[np.uint16]
    """Shape (tokens,)."""
    loss_mask: npt.NDArray[np.bool_]
    """Shape (tokens,); true where the policy samples the token."""
    offsets: npt.NDArray[np.int64]
    """Shape (samples + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each sample, shape (samples,)."""
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        """Write to ``path`` (npz), atomically."""
        part = path.with_name(f"{path.stem}.part.npz")
        np.savez(part, ids=self.ids, loss_mask=self.loss_mask, offsets=self.offsets)
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Read what ``save`` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["ids"], arrays["loss_mask"], arrays["offsets"])


def read_demonstrations(path: Path) -> Iterator[Demonstration]:
    """Yield the demonstrations of a JSONL file as ``searchr1.demo`` writes it.

    Raises:
        CorpusError: a line is not a demonstration.
    """
    return read_lines(path, _parse, wanted="demonstration")


Item = TypeVar("Item")


def read_lines(path: Path, parse: Callable[[dict[str, Any]], Item], *, wanted: str) -> Iterator[Item]:
    """Parse each line of a JSONL file.

    Raises:
        CorpusError: a line is not what was ``wanted``: it is no JSON, or ``parse`` raises what a wrong shape raises.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield parse(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise CorpusError(f"{path}, line {number} is not a {wanted}: {error!r}") from error


def replay(demonstration: Demonstration, tokenizer: Tokenizer, limits: Limits | None = None) -> Rollout:
    """Drive the loop through a demonstration and return the finished rollout.

    Raises:
        IllegalInputError: the demonstration does what the loop would not allow.
    """
    rollout = start_rollout(demonstration.question, tokenizer, limits=limits)
    for turn in demonstration.turns:
        if not isinstance(rollout.action, Generate):
            break
        rollout.receive_text(turn.text)
        rollout.end_completion("stop")
        if isinstance(rollout.action, Search):
            rollout.receive_passages(turn.passages)
    if not isinstance(rollout.action, Finish):
        raise CorpusError(f"the demonstration of {demonstration.question!r} does not reach an answer")
    return rollout


def encode_demonstrations(
    demonstrations: Iterable[Demonstration], tokenizer: Tokenizer, *, max_tokens: int, progress: bool = True
) -> Samples:
    """Tokenize ``demonstrations``; those longer than ``max_tokens`` are left out.

    ids and mask have one entry per token, prompt included.

    Raises:
        CorpusError: none is left.
    """
    bar = tqdm(demonstrations, desc="tokenizing demonstrations", disable=not progress)
    rollouts = (replay(demonstration, tokenizer) for demonstration in bar)
    short = ((r.ids, r.loss_mask) for r in rollouts if len(r.ids) <= max_tokens)
    return gather_samples(short, wanted=f"demonstration of at most {max_tokens} tokens")


def gather_samples(encoded: Iterable[tuple[Sequence[int], Sequence[bool]]], *, wanted: str) -> Samples:
    """Lay samples, each the token ids and whether they are in the loss, one after the other.

    Raises:
        CorpusError: there is none; the message calls it what was ``wanted``.
    """
    ids: list[npt.NDArray[np.uint16]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    for sample_ids, loss_mask in encoded:
        ids.append(np.array(sample_ids, dtype=np.uint16))
        masks.append(np.array(loss_mask, dtype=np.bool_))
    if not ids:
        raise CorpusError(f"no {wanted}")
    return Samples(np.concatenate(ids), np.concatenate(masks), np.cumsum([0, *map(len, ids)]))


def _parse(record: dict[str, object]) -> Demonstration:
    turns = record["turns"]
    if not isinstance(turns, Sequence) or not turns:
        raise ValueError("no turns")
    return Demonstration(
        str(record["question"]),
        tuple(
            DemonstratedTurn(
                turn["text"], tuple(Passage("", p["title"], p["text"]) for p in turn.get("passages") or ())
            )
            for turn in turns
        ),
        renamed=str(record.get("id", "")).endswith(RENAMED),
    )
