"""The passages that demonstrations show: an index's, less those of held-out questions, and as many as fit.

An observation that is longer than its limit loses its end, and with it ``</information>``: a model that has seen that
goes on writing the passage. ``fit`` shows fewer passages instead; without it the cut is taught as it is served.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from searchr1.loop.profiles.base import Profile
from searchr1.loop.types import Passage
from searchr1.retrieval.index.bm25 import LocalIndex
from searchr1.retrieval.index.storage import PassageStore
from searchr1.starts.leaks import HeldOut

SPARE = 12
"""Passages that a search asks for beyond those shown, in place of held-out ones."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of an observation."""

    top_k: int
    """Most passages of a search."""
    max_tokens: int
    """Tokens of an observation, as it will be served."""
    fit: bool
    """Leave out the last passages, so that the others fit whole."""
    vary: bool = False
    """Show from one to ``top_k`` passages, as many as the first one's digest says: shorter samples."""


class Shelf:
    """Searches for demonstrations.

    Args:
        index: what is searched.
        held_out: whose passages are never shown.
        bounds: how much is shown.
        profile: how it is shown.
        count: text to its number of tokens, in the model's vocabulary.
    """

    def __init__(
        self, index: LocalIndex, held_out: HeldOut, bounds: Bounds, profile: Profile, count: Callable[[str], int]
    ) -> None:
        self._index, self._held_out, self._bounds = index, held_out, bounds
        self._profile, self._count = profile, count

    def search(self, queries: Sequence[str]) -> list[tuple[Passage, ...]]:
        """Return what each query finds, best first, without what is held out."""
        found = self._index.search_batch(queries, self._bounds.top_k + SPARE)
        return [tuple(p for p in passages if self._may_show(p))[: self._bounds.top_k] for passages in found]

    def shown(self, passages: Sequence[Passage], needed: Sequence[int] = ()) -> tuple[Passage, ...] | None:
        """Return as many of the first ``passages`` as fit; None where one of the ``needed`` places is not among them.

        Without ``fit`` all are returned, and None where a needed passage begins behind the cut or is cut.
        """
        if self._bounds.vary and passages:
            passages = passages[: max(1 + max(needed, default=0), _number_for(passages[0].text, len(passages)))]
        fitting = len(passages)
        while fitting and self._count(self._profile.observation(passages[:fitting])) > self._bounds.max_tokens:
            fitting -= 1
        if any(place >= fitting for place in needed) or not passages:
            return None
        return tuple(passages[:fitting] if self._bounds.fit else passages) or None

    def is_cut(self, passages: Sequence[Passage]) -> bool:
        """Return whether an observation of these passages is longer than the limit."""
        return bool(passages) and self._count(self._profile.observation(passages)) > self._bounds.max_tokens

    def _may_show(self, passage: Passage) -> bool:
        # What looks like a tag in a passage is data when served; in a demonstration it would be quoted.
        return "<" not in passage.text and not (
            self._held_out.is_passage(passage) or self._held_out.is_entity(passage.title)
        )


def _number_for(text: str, most: int) -> int:
    """Return a number from 1 to ``most`` that looks random and is always the same for a text."""
    return 1 + crc32(text.encode()) % most


def passages_in(folder: Path) -> Iterator[Passage]:
    """Yield all passages of an index folder, in its order."""
    store = PassageStore(folder)
    for row in range(len(store)):
        yield store.passage(row, 0.0)
