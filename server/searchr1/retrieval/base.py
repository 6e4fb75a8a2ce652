"""What a retriever is: one method that turns a query into a typed outcome, and never raises for a failed search."""

from dataclasses import dataclass
from typing import Literal, Protocol

from searchr1.loop.types import Passage

CacheState = Literal["hit", "miss", "stale"]
CacheEvent = Literal["hit", "stale", "miss", "bypass", "refresh", "coalesced", "too_large", "not_cached"]
BreakerState = Literal["closed", "open", "half_open"]
FailureKind = Literal["timeout", "unavailable", "rate_limited", "bad_response", "rejected", "budget", "not_cached"]
"""``rejected``: the provider refuses this request, our key or our plan. ``budget``: our own budget refuses it.
``not_cached``: only the cache was to answer, and it could not."""


@dataclass(frozen=True, slots=True)
class Found:
    """A search that worked; no passages is a result too."""

    passages: tuple[Passage, ...]
    cache: CacheState = "miss"
    age_s: float | None = None
    """Seconds since the provider answered, where a cache did."""
    provider: str = ""
    """Name of the provider that found the passages."""


@dataclass(frozen=True, slots=True)
class SearchFailed:
    """A search that did not work. ``message`` is for people and names the provider; it holds no secrets."""

    kind: FailureKind
    message: str
    retry_after_s: float | None = None
    """How long the provider asks to be left alone, where it says so."""
    provider: str = ""


SearchOutcome = Found | SearchFailed


class Retriever(Protocol):
    """A source of passages."""

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Return the best ``k`` passages for ``query``, best first, within ``deadline_s`` seconds from now.

        Failures, a deadline that passes among them, come back as ``SearchFailed``. Only cancellation raises.
        """
        ...


class SearchObserver(Protocol):
    """Told what happens inside the search layer. Its methods are quick and never raise."""

    def attempt(self, provider: str, outcome: str, duration_s: float) -> None:
        """One call of a provider ended: ``found``, ``empty``, a ``FailureKind`` or ``cancelled``."""

    def cache(self, event: CacheEvent) -> None:
        """What the cache did with a search."""

    def breaker(self, provider: str, state: BreakerState) -> None:
        """A circuit breaker changed its state."""

    def retry(self, provider: str) -> None:
        """A search is sent again."""

    def hedge(self, provider: str, won: bool) -> None:
        """A second, identical search was sent; ``won`` if it answered first."""

    def cost(self, provider: str, usd: float) -> None:
        """A search was charged."""

    def budget_refused(self, scope: str) -> None:
        """A budget refused a search."""


class NullObserver:
    """Watches nothing."""

    def attempt(self, provider: str, outcome: str, duration_s: float) -> None:
        """Do nothing."""

    def cache(self, event: CacheEvent) -> None:
        """Do nothing."""

    def breaker(self, provider: str, state: BreakerState) -> None:
        """Do nothing."""

    def retry(self, provider: str) -> None:
        """Do nothing."""

    def hedge(self, provider: str, won: bool) -> None:
        """Do nothing."""

    def cost(self, provider: str, usd: float) -> None:
        """Do nothing."""

    def budget_refused(self, scope: str) -> None:
        """Do nothing."""
