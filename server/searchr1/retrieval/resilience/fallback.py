"""Several retrievers as one: the next is asked where one fails."""

from collections.abc import Sequence

from searchr1.retrieval.base import FailureKind, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.deadline import Deadline, search_within

_SHARE = 0.6
"""Share of the time left that every retriever but the last may take, so that a slow one leaves some for the next."""
_MOST_TELLING: tuple[FailureKind, ...] = (
    "rate_limited",
    "timeout",
    "bad_response",
    "unavailable",
    "rejected",
    "budget",
    "not_cached",
)
"""Kinds of failure, those first that a later search may not meet."""


class FallbackRetriever:
    """A ``Retriever`` that asks ``retrievers`` in their order until one does not fail; no passages are no failure.

    Where all fail, the outcome is of the most telling kind, its message holds every message, and ``retry_after_s`` is
    the least.
    """

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        if not retrievers:
            raise ValueError("a fallback chain needs at least one retriever")
        self._retrievers = tuple(retrievers)

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        deadline = Deadline(deadline_s)
        failures: list[SearchFailed] = []
        last = len(self._retrievers) - 1
        for position, retriever in enumerate(self._retrievers):
            allowed_s = deadline.left_s() * (1.0 if position == last else _SHARE)
            if allowed_s <= 0:
                break
            outcome = await search_within(retriever, query, k, allowed_s, f"retriever {position + 1} of the chain")
            if not isinstance(outcome, SearchFailed):
                return outcome
            failures.append(outcome)
        return _summary(failures, deadline_s)


def _summary(failures: Sequence[SearchFailed], deadline_s: float) -> SearchFailed:
    if not failures:
        return SearchFailed("timeout", f"no retriever could be asked within {deadline_s:g} s")
    if len(failures) == 1:
        return failures[0]
    telling = min(failures, key=lambda failure: _MOST_TELLING.index(failure.kind))
    waits_s = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    message = "; ".join(failure.message for failure in failures)
    return SearchFailed(telling.kind, message, min(waits_s, default=None), telling.provider, telling.status)
