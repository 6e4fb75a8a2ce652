"""How the search layer is set up: which providers, what may be kept for how long, what may be tried how often."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """The search cache. Without ``redis_url`` it lives in this process's memory."""

    enabled: bool = True
    redis_url: str | None = None
    soft_ttl_s: float = 86_400.0
    """Younger entries are hits; older ones are served stale while one refresh runs."""
    hard_ttl_s: float = 604_800.0
    """Older entries are gone."""
    empty_ttl_s: float = 300.0
    """Of a search that found nothing."""
    ttls_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """(soft, hard) of single providers, by name."""
    max_entry_bytes: int = 262_144
    memory_bytes: int = 67_108_864
    """Bound of the cache in memory; the least recently used go first."""


@dataclass(frozen=True, slots=True)
class ResilienceConfig:
    """What a provider may be put through."""

    attempts: int = 3
    """Calls per search, retries included."""
    breaker_failures: int = 5
    """Failures in a row after which a provider is left alone."""
    breaker_reset_s: float = 30.0
    """How long it is left alone before one search tries it again."""
    max_concurrent: int = 64
    """Calls at once, per provider."""
    rate_per_s: float | None = None
    """Calls per second, per provider."""
    hedge: bool = False
    """Send a second, identical call when one takes longer than 95 of 100 did."""


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """What may be spent in a window of ``window_s`` seconds; None is no limit."""

    costs_usd: Mapping[str, float] = field(default_factory=dict)
    """Price of one search, by provider name."""
    window_s: float = 86_400.0
    per_key: int | None = None
    per_tenant: int | None = None
    usd_per_key: float | None = None
    usd_per_tenant: float | None = None


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The whole search layer."""

    retriever: str
    """One provider, or several separated by commas, tried in this order."""
    timeout_s: float = 10.0
    passage_chars: int = 2000
    """Characters of a web result's text; whole sentences are kept."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Keys by provider name."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    resilience: ResilienceConfig = field(default_factory=ResilienceConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
