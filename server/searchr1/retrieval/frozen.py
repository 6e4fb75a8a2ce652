"""A retriever that answers from a record, so that a run can be run again on what was found then."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchOutcome


@dataclass(frozen=True, slots=True)
class FrozenSearch:
    """One recorded search. ``error`` says why it has no passages, where it failed."""

    query: str
    passages: tuple[Passage, ...]
    provider: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedSearches:
    """The searches of a run that is run again."""

    searches: tuple[FrozenSearch, ...]
    searches_on_miss: bool = False
    """Search for a query that the record lacks, instead of failing it."""

    def retriever(self, live: Retriever) -> "FrozenRetriever":
        """Return the retriever that answers from the record; ``live`` is what searches."""
        return FrozenRetriever(self.searches, live if self.searches_on_miss else None)


class FrozenRetriever:
    """A ``Retriever`` that answers as the record does: a query's first time as its first search, then as its next one.

    Once none is left, its last one answers again. A query that the record lacks goes to ``otherwise``, or fails as
    ``not_cached`` where that is None.
    """

    def __init__(self, searches: Sequence[FrozenSearch], otherwise: Retriever | None = None) -> None:
        self._recorded: dict[str, list[FrozenSearch]] = defaultdict(list)
        for search in searches:
            self._recorded[search.query].append(search)
        self._otherwise = otherwise

    def skip(self, query: str) -> None:
        """Pass over a search that the run has had already."""
        if len(recorded := self._recorded.get(query, [])) > 1:
            del recorded[0]

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        recorded = self._recorded.get(query)
        if recorded:
            search = recorded.pop(0) if len(recorded) > 1 else recorded[0]
            if search.error is not None:
                # The record's own words may be a client's, and this goes to the log.
                return SearchFailed("unavailable", "the record says that it failed", provider=search.provider)
            return Found(search.passages[:k], cache="hit", provider=search.provider)
        if self._otherwise is not None:
            return await self._otherwise.search(query, k, deadline_s)
        return SearchFailed("not_cached", "the record holds no such search")
