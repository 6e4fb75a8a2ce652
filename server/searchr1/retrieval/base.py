"""What a retriever is: one method that turns a query into a typed outcome, and never raises for a failed search."""

from dataclasses import dataclass
from typing import Literal, Protocol

from searchr1.loop.types import Passage

CacheState = Literal["hit", "miss", "stale"]
FailureKind = Literal["timeout", "unavailable", "rate_limited", "bad_response", "rejected", "budget"]


@dataclass(frozen=True, slots=True)
class Found:
    """A search that worked; no passages is a result too."""

    passages: tuple[Passage, ...]
    cache: CacheState = "miss"


@dataclass(frozen=True, slots=True)
class SearchFailed:
    """A search that did not work. ``message`` is for people and names the provider; it holds no secrets."""

    kind: FailureKind
    message: str


SearchOutcome = Found | SearchFailed


class Retriever(Protocol):
    """A source of passages."""

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Return the best ``k`` passages for ``query``, best first, within ``deadline_s`` seconds from now.

        Failures, a deadline that passes among them, come back as ``SearchFailed``. Only cancellation raises.
        """
        ...
