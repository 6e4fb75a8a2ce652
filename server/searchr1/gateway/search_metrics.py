"""Prometheus metrics of the search layer: providers, cache, breakers and budgets, and how the providers are."""

import logging
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from searchr1.breaker import BreakerState
from searchr1.retrieval.base import CacheEvent

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BREAKER: Final = "searchr1_search_breaker"

logger = logging.getLogger(__name__)


class ProviderHealth:
    """The providers' health, as it is known from the searches that they were sent; nothing is asked for its sake."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}
        """Kind of each provider's last failure, where nothing has worked since."""
        self._open: set[str] = set()

    @property
    def word(self) -> str:
        """``ok``, or each provider in trouble with ``circuit_open`` or the kind of its last failure."""
        trouble = dict(sorted(self._failing.items())) | dict.fromkeys(sorted(self._open), "circuit_open")
        return ", ".join(f"{provider}: {word}" for provider, word in trouble.items()) or "ok"

    def attempt(self, provider: str, outcome: str) -> None:
        """Take the end of a call."""
        if outcome in ("found", "empty"):
            self._failing.pop(provider, None)
        elif outcome != "cancelled":
            self._failing[provider] = outcome

    def breaker(self, provider: str, state: BreakerState) -> None:
        """Take a change of a provider's circuit breaker, and log where it opens and where it closes again."""
        if state == "open" and provider not in self._open:
            self._open.add(provider)
            why = self._failing.get(provider, "failures").replace("_", " ")
            logger.warning("search provider %s is not called for a while: %s", provider, why)
        elif state == "closed" and provider in self._open:
            self._open.discard(provider)
            logger.info("search provider %s is back", provider)


class SearchMetrics:
    """A ``SearchObserver`` that counts in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.providers = ProviderHealth()
        self._with_breaker: set[str] = set()
        """Providers whose breaker's state is shown."""
        self._attempts = Counter(
            "searchr1_search_attempts", "Calls of a provider by outcome.", ["provider", "outcome"], registry=registry
        )
        self._attempt_s = Histogram(
            "searchr1_search_attempt_seconds",
            "Wall time of one call of a provider.",
            ["provider"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._cache = Counter(
            "searchr1_search_cache", "What the search cache did with a search.", ["event"], registry=registry
        )
        # An Enum by its look; workers share none.
        self._breaker = Gauge(
            _BREAKER,
            "State of a provider's circuit breaker: 1, or how many workers see it so.",
            ["provider", _BREAKER],
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._retries = Counter(
            "searchr1_search_retries", "Calls that were sent again.", ["provider"], registry=registry
        )
        self._hedges = Counter(
            "searchr1_search_hedges", "Second calls by whether they won.", ["provider", "won"], registry=registry
        )
        self._cost = Counter("searchr1_search_cost_usd", "Dollars charged.", ["provider"], registry=registry)
        self._refused = Counter(
            "searchr1_search_budget_refusals", "Searches that a budget refused.", ["scope"], registry=registry
        )

    def attempt(self, provider: str, outcome: str, duration_s: float) -> None:
        """See ``SearchObserver``."""
        self.providers.attempt(provider, outcome)
        if provider not in self._with_breaker:
            self._show_breaker(provider, "closed")
        self._attempts.labels(provider, outcome).inc()
        self._attempt_s.labels(provider).observe(duration_s)

    def cache(self, event: CacheEvent) -> None:
        """See ``SearchObserver``."""
        self._cache.labels(event).inc()

    def breaker(self, provider: str, state: BreakerState) -> None:
        """See ``SearchObserver``."""
        self.providers.breaker(provider, state)
        self._show_breaker(provider, state)

    def _show_breaker(self, provider: str, state: BreakerState) -> None:
        self._with_breaker.add(provider)
        for other in get_args(BreakerState):
            self._breaker.labels(provider, other).set(other == state)

    def retry(self, provider: str) -> None:
        """See ``SearchObserver``."""
        self._retries.labels(provider).inc()

    def hedge(self, provider: str, won: bool) -> None:
        """See ``SearchObserver``."""
        self._hedges.labels(provider, "yes" if won else "no").inc()

    def cost(self, provider: str, usd: float) -> None:
        """See ``SearchObserver``."""
        self._cost.labels(provider).inc(usd)

    def budget_refused(self, scope: str) -> None:
        """See ``SearchObserver``."""
        self._refused.labels(scope).inc()
