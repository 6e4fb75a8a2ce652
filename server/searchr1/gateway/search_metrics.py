"""Prometheus metrics of the search layer: providers, cache, breakers and budgets."""

from prometheus_client import CollectorRegistry, Counter, Enum, Histogram

from searchr1.retrieval.base import BreakerState, CacheEvent

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class SearchMetrics:
    """A ``SearchObserver`` that counts in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
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
        self._breaker = Enum(
            "searchr1_search_breaker",
            "State of a provider's circuit breaker.",
            ["provider"],
            states=["closed", "open", "half_open"],
            registry=registry,
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
        self._attempts.labels(provider, outcome).inc()
        self._attempt_s.labels(provider).observe(duration_s)

    def cache(self, event: CacheEvent) -> None:
        """See ``SearchObserver``."""
        self._cache.labels(event).inc()

    def breaker(self, provider: str, state: BreakerState) -> None:
        """See ``SearchObserver``."""
        self._breaker.labels(provider).state(state)

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
