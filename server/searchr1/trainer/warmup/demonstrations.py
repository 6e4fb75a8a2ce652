"""Demonstrations as training samples: the text of a rollout becomes token ids and a loss mask through the loop itself.

A demonstration is replayed through the same state machine that serves, so a sample's bytes are the served bytes: each
segment tokenized alone, observations cut as in serving, the mask true on what the policy would have sampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from searchr1.atlas.records import Demonstration
from searchr1.errors import CorpusError
from searchr1.files import whole_file
from searchr1.loop.machine import Rollout
from searchr1.loop.profiles.base import Profile
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.loop.types import Finish, Generate, Limits, Search
from searchr1.rollout import start_rollout
from searchr1.tokenizer import Tokenizer

_TOGETHER = 50
"""Demonstrations that a process tokenizes at a time."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Tokenized demonstrations, one after the other in flat arrays; sample ``i`` is ``offsets[i]:offsets[i + 1]``."""

    ids: npt.NDArray[np.integer[Any]]
    """Shape (tokens,); int32, or uint16 in files of earlier versions."""
    loss_mask: npt.NDArray[np.bool_]
    """Shape (tokens,); true where the policy samples the token."""
    offsets: npt.NDArray[np.int64]
    """Shape (samples + 1,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Number of tokens of each sample, shape (samples,)."""
        return np.diff(self.offsets)

    def save(self, path: Path) -> None:
        """Write to ``path`` (npz), whole or not at all."""
        with whole_file(path) as file:
            np.savez(file, ids=self.ids, loss_mask=self.loss_mask, offsets=self.offsets)

    @classmethod
    def load(cls, path: Path) -> "Samples":
        """Read what ``save`` wrote."""
        with np.load(path) as arrays:
            return cls(arrays["ids"], arrays["loss_mask"], arrays["offsets"])


def replay(
    demonstration: Demonstration, tokenizer: Tokenizer, limits: Limits | None = None, profile: Profile = SEARCH_R1
) -> Rollout:
    """Drive the loop through a demonstration and return the finished rollout.

    Raises:
        IllegalInputError: the demonstration does what the loop would not allow.
        CorpusError: it does not reach an answer.
    """
    rollout = start_rollout(demonstration.question, tokenizer, profile=profile, limits=limits)
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
    demonstrations: Iterable[Demonstration],
    tokenizer: Tokenizer,
    *,
    max_tokens: int,
    num_processes: int = 1,
    progress: bool = True,
) -> Samples:
    """Tokenize ``demonstrations``, prompts included; those longer than ``max_tokens`` are left out.

    The samples are the same for any ``num_processes``, which are forked.

    Raises:
        CorpusError: none is left.
    """
    bar = tqdm(demonstrations, desc="tokenizing demonstrations", disable=not progress)
    wanted = f"demonstration of at most {max_tokens} tokens"
    if num_processes == 1:
        _use(tokenizer)
        return gather_samples((one for one in map(_encode, bar) if len(one[0]) <= max_tokens), wanted=wanted)
    with get_context("fork").Pool(num_processes, _use, (tokenizer,)) as pool:
        encoded = pool.imap(_encode, bar, chunksize=_TOGETHER)
        return gather_samples((one for one in encoded if len(one[0]) <= max_tokens), wanted=wanted)


_used: list[Tokenizer] = []
"""The tokenizer of this process; a tokenizer cannot be sent to another one."""


def _use(tokenizer: Tokenizer) -> None:
    _used[:] = [tokenizer]


def _encode(demonstration: Demonstration) -> tuple[list[int], list[bool]]:
    rollout = replay(demonstration, _used[0])
    return list(rollout.ids), list(rollout.loss_mask)


def with_first_turns(samples: Samples, share: float, *, max_tokens: int, seed: int) -> Samples:
    """Cut a ``share`` of ``samples``, and all above ``max_tokens``, after what the policy samples first.

    What to look for is decided there, in a third of the tokens.
    """
    random = np.random.default_rng((seed, 2))
    spans = []
    for start, end in pairwise(samples.offsets.tolist()):
        if random.random() < share or end - start > max_tokens:
            mask = samples.loss_mask[start:end]
            begins = int(mask.argmax())
            rest = mask[begins:]
            end = start + begins + (int(rest.argmin()) if not rest.all() else len(rest))
        spans.append((start, end))
    lengths = [end - start for start, end in spans]
    rows = np.concatenate([np.arange(start, end) for start, end in spans])
    return Samples(samples.ids[rows], samples.loss_mask[rows], np.cumsum([0, *lengths]))


def gather_samples(encoded: Iterable[tuple[Sequence[int], Sequence[bool]]], *, wanted: str) -> Samples:
    """Lay samples one after the other; each is its token ids and its mask of those in the loss.

    Raises:
        CorpusError: there is none; the message calls it what was ``wanted``.
    """
    ids: list[npt.NDArray[np.int32]] = []
    masks: list[npt.NDArray[np.bool_]] = []
    for sample_ids, loss_mask in encoded:
        ids.append(np.array(sample_ids, dtype=np.int32))
        masks.append(np.array(loss_mask, dtype=np.bool_))
    if not ids:
        raise CorpusError(f"no {wanted}")
    return Samples(np.concatenate(ids), np.concatenate(masks), np.cumsum([0, *map(len, ids)]))
