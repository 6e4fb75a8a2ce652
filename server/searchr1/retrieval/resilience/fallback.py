"""Several retrievers as one: the next is asked where one fails."""

from collections.abc import Sequence

from searchr1.retrieval.base import FailureKind, Found, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.deadline import Deadline, search_within

_TELLING: tuple[FailureKind, ...] = (
    "rate_limited",
    "timeout",
    "bad_response",
    "unavailable",
    "rejected",
    "budget",
    "not_cached",
)
"""Kinds of failure, those that a later search may not meet first."""


class FallbackRetriever:
    """A ``Retriever`` that asks ``retrievers`` in their order until one finds something.

    Every one but the last may take ``share`` of the time then left, so that a slow one leaves some for the next. With
    ``on_empty`` a search without passages goes on too, and is the outcome only if no later one finds any. Where all
    fail, the outcome is of the most telling kind, its message holds every message, and ``retry_after_s`` is the least.
    """

    def __init__(self, retrievers: Sequence[Retriever], *, on_empty: bool = False, share: float = 0.6) -> None:
        if not retrievers:
            raise ValueError("a fallback chain needs at least one retriever")
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], got {share}")
        self._retrievers, self._on_empty, self._share = tuple(retrievers), on_empty, share

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        deadline = Deadline(deadline_s)
        empty: Found | None = None
        failures: list[SearchFailed] = []
        last = len(self._retrievers) - 1
        for position, retriever in enumerate(self._retrievers):
            allowed_s = deadline.left_s() * (1.0 if position == last else self._share)
            if allowed_s <= 0:
                break
            outcome = await search_within(retriever, query, k, allowed_s, f"retriever {position + 1} of the chain")
            if isinstance(outcome, SearchFailed):
                failures.append(outcome)
            elif outcome.passages or not self._on_empty:
                return outcome
            else:
                empty = empty or outcome
        return empty or _summary(failures, deadline_s)


def _summary(failures: Sequence[SearchFailed], deadline_s: float) -> SearchFailed:
    if not failures:
        return SearchFailed("timeout", f"no retriever could be asked within {deadline_s:g} s")
    if len(failures) == 1:
        return failures[0]
    telling = min(failures, key=lambda failure: _TELLING.index(failure.kind))
    waits_s = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    message = "; ".join(failure.message for failure in failures)
    return SearchFailed(telling.kind, message, min(waits_s, default=None), telling.provider)
