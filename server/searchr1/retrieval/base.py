"""The ``Retriever`` protocol: one method that turns a query into a typed outcome, and raises for no failed search."""

from dataclasses import dataclass
from typing import Literal, Protocol

from searchr1.breaker import BreakerState
from searchr1.loop.types import Passage

CacheState = Literal["hit", "miss", "stale"]
CacheEvent = Literal["hit", "stale", "miss", "bypass", "refresh", "coalesced", "too_large", "not_cached"]
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
    """Seconds for which the provider asks to be left alone, where it says so."""
    provider: str = ""
    """Name of the provider that failed."""
    status: int | None = None
    """HTTP status that the provider answered with, where the failure is one."""


SearchOutcome = Found | SearchFailed


class Retriever(Protocol):
    """A source of passages.

    A whole retriever, over a dictionary::

        class Capitals:
            async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
                found = {"mali": Passage("1", '"Mali"', "Its capital is Bamako.")}.get(query.lower())
                return Found((found,)[:k] if found else (), provider="capitals")

        outcome = await Capitals().search("Mali", k=3, deadline_s=10)
        if isinstance(outcome, Found):
            texts = [passage.contents for passage in outcome.passages]
        else:
            print(outcome.kind, outcome.message)

    ``FakeRetriever`` in ``fake.py`` is one for tests. The conformance suite is tests/retrieval/test_conformance.py.
    """

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """Return the best ``k`` passages for ``query``, best first, within ``deadline_s`` seconds from now.

        ``deadline_s`` may be ``math.inf``. Failures come back as ``SearchFailed``, a deadline that passes among them;
        only cancellation raises.
        """
        ...


class SearchObserver(Protocol):
    """Receiver of what happens inside the search layer, for metrics. Its methods are quick and never raise."""

    def attempt(self, provider: str, outcome: str, duration_s: float) -> None:
        """Note that one call of a provider ended: ``found``, ``empty``, a ``FailureKind`` or ``cancelled``."""

    def cache(self, event: CacheEvent) -> None:
        """Note what the cache did with a search."""

    def breaker(self, provider: str, state: BreakerState) -> None:
        """Note that a circuit breaker changed its state."""

    def retry(self, provider: str) -> None:
        """Note that a search is sent again."""

    def hedge(self, provider: str, won: bool) -> None:
        """Note that a second, identical search was sent; ``won`` if it answered first."""

    def cost(self, provider: str, usd: float) -> None:
        """Note that a search was charged."""

    def budget_refused(self, scope: str) -> None:
        """Note that a budget refused a search."""


class NullObserver:
    """An observer that notes nothing."""

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
