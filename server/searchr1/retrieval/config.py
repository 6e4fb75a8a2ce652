"""Settings of the search layer, one class a concern. Defaults, bounds and meanings are written here alone.

``searchr1.settings`` makes an environment variable of every field: see docs/reference/settings.md.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from searchr1.errors import ConfigurationError

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]
SearchLimit = Annotated[int | None, Field(ge=0)]
DollarLimit = Annotated[float | None, Field(ge=0)]


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Lifetimes and sizes of the searches that are kept.

    Raises ``ConfigurationError`` for a soft TTL that is not below its hard one.
    """

    enabled: bool = True
    """Keep what searches found."""
    soft_ttl_s: Seconds = 86_400.0
    """Seconds up to which an entry is a hit. An older one is served as stale while one refresh runs."""
    hard_ttl_s: Seconds = 604_800.0
    """Seconds after which an entry is dropped."""
    empty_ttl_s: Seconds = 300.0
    """Seconds after which a search that found nothing is dropped; it is never stale."""
    ttls_s: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Other (soft, hard) seconds for single providers, as JSON: ``{"tavily": [3600, 86400]}``; by name, or by the part
    of it before a colon."""
    max_entry_bytes: Annotated[int, Field(ge=1024)] = 262_144
    """Bytes, before it is deflated, over which a search is not kept."""
    memory_mib: Count = 64
    """MiB that the cache in memory may take; the least recently used entries go first."""

    def __post_init__(self) -> None:
        limits = {"cache_soft_ttl_s and cache_hard_ttl_s": (self.soft_ttl_s, self.hard_ttl_s)}
        limits |= {f"cache_ttls_s[{name!r}]": ttls for name, ttls in self.ttls_s.items()}
        for where, (soft_s, hard_s) in limits.items():
            if not 0 < soft_s < hard_s:
                raise ConfigurationError(f"{where}: the soft TTL must be above 0 and below the hard one")

    def ttl_s(self, provider: str) -> tuple[float, float]:
        """Return (soft, hard) of ``provider``."""
        family = self.ttls_s.get(provider.partition(":")[0], (self.soft_ttl_s, self.hard_ttl_s))
        return self.ttls_s.get(provider, family)


@dataclass(frozen=True, slots=True)
class ResilienceConfig:
    """Retry, rate and circuit-breaker limits of one provider."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Calls of a provider per search, retries included."""
    breaker_failures: Count = 5
    """Failures in a row after which the circuit opens and no search calls that provider."""
    breaker_reset_s: Seconds = 30.0
    """Seconds until one search tries a provider again whose circuit is open."""
    max_concurrent: Count = 64
    """Calls of a provider at once."""
    rate_per_s: Annotated[float | None, Field(gt=0)] = None
    """Calls of a provider per second, evenly spaced; by default without a bound."""
    hedge: bool = False
    """Send a second, identical call when one takes longer than 95 of 100 did; the first answer counts."""


@dataclass(frozen=True, slots=True)
class BudgetConfig:
    """Prices of searches, and the limits of one API key and of one tenant; None is no limit.

    Raises ``ConfigurationError`` for a price that is negative or not finite.
    """

    costs_usd: Mapping[str, float] = field(default_factory=dict)
    """Dollars that one search costs, by provider, as JSON: ``{"tavily": 0.008}``. A name with more after a colon
    (``tavily:advanced``) that has no price of its own costs what the part before does; a provider without a price is
    free."""
    window_s: Seconds = 86_400.0
    """Seconds of the window in which searches and dollars count; it starts with its first search."""
    per_key: SearchLimit = None
    """Searches of one API key per window that may reach a provider; cached ones are free."""
    per_tenant: SearchLimit = None
    """Searches of one tenant per window that may reach a provider."""
    usd_per_key: DollarLimit = None
    """Dollars of one API key per window."""
    usd_per_tenant: DollarLimit = None
    """Dollars of one tenant per window."""
    keys_have_limits: bool = False
    """Whether an API key may bring a limit of searches of its own."""

    def __post_init__(self) -> None:
        for provider, usd in self.costs_usd.items():
            if not (math.isfinite(usd) and usd >= 0):
                raise ConfigurationError(f"search_costs_usd[{provider!r}]: a price must be 0 or more, got {usd}")

    @property
    def counts_anything(self) -> bool:
        """Tell whether there is a price to report or a limit to keep."""
        limits = (self.per_key, self.per_tenant, self.usd_per_key, self.usd_per_tenant)
        return bool(self.costs_usd) or self.keys_have_limits or any(limit is not None for limit in limits)

    def usd(self, provider: str) -> float:
        """Return the price of one search by ``provider``."""
        return self.costs_usd.get(provider, self.costs_usd.get(provider.partition(":")[0], 0.0))

    def highest_usd(self) -> float:
        """Return the price of the dearest search."""
        return max(self.costs_usd.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The whole search layer."""

    retriever: str = field(repr=False)
    """One provider, or several separated by commas, tried in this order."""
    timeout_s: Seconds = 10.0
    """Seconds that one search may take."""
    passage_chars: Annotated[int, Field(ge=50)] = 2000
    """Characters of a passage's text that are kept: of a web result, in whole sentences."""
    share_cache: bool = False
    """Let API keys without a tenant share cached searches. Each could then find out what the others searched for."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Keys by provider name."""
    redis_url: str | None = field(default=None, repr=False)
    """Redis for the cache and the budgets' counters; without it they live in this process's memory."""
    cache: CacheConfig = field(default_factory=CacheConfig)
    resilience: ResilienceConfig = field(default_factory=ResilienceConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
