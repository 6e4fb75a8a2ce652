"""Samples to imitate, out of any of three files: token rows, exported runs, demonstrations.

The neutral form is a token row, one JSON object a line, with the names that ``searchr1 export`` has in its parquet::

    {"token_ids": [1, 4093, …], "loss_mask": [0, 0, 1, …]}

``token_ids`` is a whole trajectory, the prompt first; ``loss_mask`` has a 1 for each id that the policy shall learn to
write. An exported run (docs/schemas/run.v1.json) is read as the ids and masks of its segments. Both hold ids, and so
belong to one tokenizer. A demonstration (``atlas/records.py``) is text, which the loop turns into the bytes that are
served: prompt and observations outside of the loss, each segment tokenized alone, observations cut at their limit.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter
from tqdm import tqdm

from searchr1.atlas.records import read_demonstrations
from searchr1.errors import CorpusError, DatasetError
from searchr1.files import read_json_lines
from searchr1.json_texts import json_texts
from searchr1.loop.profiles.base import Profile
from searchr1.loop.types import Limits
from searchr1.tokenizer import Tokenizer
from searchr1.trainer.warmup.demonstrations import Samples, gather_samples, replay

Encoded = tuple[Sequence[int], Sequence[bool]]
"""Token ids of a trajectory, and as many flags: true where the policy learns to write the id."""
_FORMS = '{"token_ids", "loss_mask"}, exported runs with a "trajectory", or demonstrations with "turns"'


@dataclass(frozen=True, slots=True)
class _TokenRow:
    token_ids: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    loss_mask: list[Literal[0, 1]]


@dataclass(frozen=True, slots=True)
class _Segment:
    token_ids: list[Annotated[int, Field(ge=0)]]
    loss_mask: list[Literal[0, 1]]


@dataclass(frozen=True, slots=True)
class _Trajectory:
    segments: Annotated[list[_Segment], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class _Run:
    trajectory: _Trajectory


def gather(
    paths: Iterable[Path],
    tokenizer: Tokenizer,
    profile: Profile,
    limits: Limits,
    *,
    max_tokens: int,
    progress: bool = True,
) -> tuple[Samples, int]:
    """Return the samples of all files in their order, and the number of those left out as longer than ``max_tokens``.

    Raises:
        DatasetError: a file can't be read, is of no known form, or holds ids that the tokenizer does not have.
        CorpusError: no sample is left.
    """
    left_out = 0

    def kept() -> Iterator[Encoded]:
        nonlocal left_out
        for path in paths:
            for ids, mask in tqdm(read_samples(path, tokenizer, profile, limits), desc=path.name, disable=not progress):
                if len(ids) <= max_tokens:
                    yield ids, mask
                else:
                    left_out += 1

    return gather_samples(kept(), wanted=f"sample of at most {max_tokens} tokens"), left_out


def read_samples(path: Path, tokenizer: Tokenizer, profile: Profile, limits: Limits) -> Iterator[Encoded]:
    """Yield the samples of one file; ``profile`` and ``limits`` are those of demonstrations.

    Raises ``DatasetError`` as ``gather`` does.
    """
    form = _form_of(path)
    if form == "turns":
        yield from _of_demonstrations(path, tokenizer, profile, limits)
        return
    for where, ids, mask in _runs(path) if form == "trajectory" else _token_rows(path):
        if len(ids) != len(mask):
            raise DatasetError(f"{where}: {len(ids)} token_ids, and {len(mask)} in loss_mask")
        if max(ids, default=0) >= tokenizer.vocab_size:
            raise DatasetError(f"{where}: the id {max(ids)} is none of the model's {tokenizer.vocab_size}")
        if any(mask[1:]):
            yield ids, [flag == 1 for flag in mask]


def _form_of(path: Path) -> str:
    for where, text in islice(json_texts(path, DatasetError), 1):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise DatasetError(f"{where}: not valid JSON: {error}") from error
        forms = [name for name in ("turns", "trajectory", "token_ids") if isinstance(value, dict) and name in value]
        if not forms:
            raise DatasetError(f"{where}: samples are one of {_FORMS}")
        return forms[0]
    raise DatasetError(f"{path} holds no sample")


def _token_rows(path: Path) -> Iterator[tuple[str, list[int], Sequence[int]]]:
    for where, row in read_json_lines(path, TypeAdapter(_TokenRow)):
        yield where, row.token_ids, row.loss_mask


def _runs(path: Path) -> Iterator[tuple[str, list[int], Sequence[int]]]:
    for where, run in read_json_lines(path, TypeAdapter(_Run)):
        segments = run.trajectory.segments
        ids = list(chain.from_iterable(segment.token_ids for segment in segments))
        yield where, ids, list(chain.from_iterable(segment.loss_mask for segment in segments))


def _of_demonstrations(path: Path, tokenizer: Tokenizer, profile: Profile, limits: Limits) -> Iterator[Encoded]:
    for demonstration in read_demonstrations(path):
        try:
            rollout = replay(demonstration, tokenizer, limits, profile)
        except CorpusError as error:
            raise DatasetError(f"{path}: {error}") from error
        yield rollout.ids, rollout.loss_mask
