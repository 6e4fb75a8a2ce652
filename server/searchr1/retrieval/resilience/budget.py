"""What searches cost, and how many of them, or how many dollars, an API key and a tenant may spend in a window.

A search reserves its place in all of its budgets before it is sent, at the dearest price, so that concurrent searches
cannot pass a limit together; once its outcome is known the reservation becomes what it really cost.

* From the cache (``hit``, ``stale``): nothing. The refresh behind a stale answer is charged to nobody.
* A ``miss``: one search, at the price of the provider that answered. Retries, hedges and providers that failed earlier
  in a chain are not added.
* ``timeout`` and ``bad_response``: charged like a miss, since the provider may have answered, and billed it.
  Other failures: nothing.
* A search that is cancelled keeps its reservation, for the same reason.

A counter store that cannot be reached lets searches pass (``fail_open``) or refuses them.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.deadline import Deadline
from searchr1.retrieval.resilience.counters import CounterError, CounterStore, Quota, Refused, Spend

logger = logging.getLogger(__name__)

_MICROS = 1_000_000
_BILLED_FAILURES = frozenset({"timeout", "bad_response"})


class Account(Protocol):
    """Who pays. Neither is a secret; keys without an id, and callers without a tenant, share one budget."""

    @property
    def tenant(self) -> str:
        """Name of the tenant."""

    @property
    def key_id(self) -> str:
        """Tells API keys apart without being one."""


class CostTable:
    """Price of one search by provider, in US dollars; ``default_usd`` for those it does not name.

    A provider's name may carry more after a colon (``tavily:advanced``); without a price of its own it costs what the
    part before does. Raises ``ValueError`` for a price that is negative or not finite.
    """

    def __init__(self, costs_usd: Mapping[str, float], *, default_usd: float = 0.0) -> None:
        self._costs_usd, self._default_usd = dict(costs_usd), default_usd
        for provider, usd in {**self._costs_usd, "others": default_usd}.items():
            if not (math.isfinite(usd) and usd >= 0):
                raise ValueError(f"the price of a search by {provider} must be 0 or more dollars, got {usd}")

    def usd(self, provider: str) -> float:
        """Price of one search by ``provider``."""
        family = self._costs_usd.get(provider.partition(":")[0], self._default_usd)
        return self._costs_usd.get(provider, family)

    def highest_usd(self) -> float:
        """Price of the dearest search."""
        return max([self._default_usd, *self._costs_usd.values()])


@dataclass(frozen=True, slots=True)
class Limit:
    """What one key, or one tenant, may spend in a window; None is no limit."""

    searches: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place in the budgets, to be given back to ``Budgets.settle``."""

    keys: tuple[str, ...]
    usd: float


class Budgets:
    """The budgets of all keys and tenants; a window starts with its first search and lasts ``window_s`` seconds.

    ``outages`` counts the operations that the store did not answer.
    """

    def __init__(
        self,
        store: CounterStore,
        costs: CostTable,
        *,
        observer: SearchObserver,
        per_key: Limit | None = None,
        per_tenant: Limit | None = None,
        window_s: float = 86_400.0,
        fail_open: bool = True,
    ) -> None:
        self.costs, self.outages = costs, 0
        self._store, self._observer, self._window_s, self._fail_open = store, observer, window_s, fail_open
        self._limits = {"key": per_key or Limit(), "tenant": per_tenant or Limit()}
        self._store_works = True

    async def reserve(self, account: Account) -> Reservation | SearchFailed:
        """Take a place for one search in the budgets of ``account``, or say which of them is used up."""
        usd = self.costs.highest_usd()
        names = {"key": f"key:{account.key_id}", "tenant": "tenant"}
        quotas = [
            Quota(scope, _counter_key(account.tenant, names[scope]), limit.searches, _micros(limit.usd))
            for scope, limit in self._limits.items()
            if limit != Limit()
        ]
        if not quotas:
            return Reservation((), usd)
        try:
            refused = await self._store.reserve(quotas, Spend(1, _micros_of(usd)), self._window_s)
        except CounterError as error:
            return self._without_store(error, usd)
        self._store_works = True
        if refused is not None:
            return self._refusal(refused)
        return Reservation(tuple(quota.key for quota in quotas), usd)

    async def settle(self, reservation: Reservation, outcome: SearchOutcome) -> None:
        """Turn the reservation into what ``outcome`` cost."""
        billed = outcome.cache == "miss" if isinstance(outcome, Found) else outcome.kind in _BILLED_FAILURES
        usd = self.costs.usd(outcome.provider) if billed else 0.0
        if billed:
            self._observer.cost(outcome.provider, usd)
        change = Spend(0 if billed else -1, _micros_of(usd) - _micros_of(reservation.usd))
        if not reservation.keys or change == Spend(0, 0):
            return
        try:
            await self._store.adjust(reservation.keys, change)
        except CounterError as error:
            self._count_outage(error)

    def _refusal(self, refused: Refused) -> SearchFailed:
        self._observer.budget_refused(refused.scope)
        message = f"the search budget of this {refused.scope.replace('key', 'API key')} is used up"
        return SearchFailed("budget", message, refused.retry_after_s)

    def _without_store(self, error: CounterError, usd: float) -> Reservation | SearchFailed:
        self._count_outage(error)
        if self._fail_open:
            return Reservation((), usd)
        self._observer.budget_refused("store")
        return SearchFailed("budget", "the search budget cannot be read, and no search is sent without it")

    def _count_outage(self, error: CounterError) -> None:
        self.outages += 1
        if self._store_works:
            logger.warning("search budgets are not %s: %s", "enforced" if self._fail_open else "readable", error)
        self._store_works = False


class BudgetedRetriever:
    """A ``Retriever`` that searches ``inner`` on behalf of ``account``, within its budgets."""

    def __init__(self, inner: Retriever, budgets: Budgets, account: Account) -> None:
        self._inner, self._budgets, self._account = inner, budgets, account

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        deadline = Deadline(deadline_s)
        reservation = await self._budgets.reserve(self._account)
        if isinstance(reservation, SearchFailed):
            return reservation
        outcome = await self._inner.search(query, k, deadline.left_s())
        await self._budgets.settle(reservation, outcome)
        return outcome


def _counter_key(tenant: str, name: str) -> str:
    """All counters of a tenant share a hash tag, and so a slot of a Redis Cluster.

    Redis takes no notice of an empty tag, hence the ``t:``: callers without a tenant have the empty one.
    """
    tag = tenant.replace("{", "(").replace("}", ")")
    return f"searchr1:budget:{{t:{tag}}}:{name}"


def _micros(usd: float | None) -> int | None:
    return None if usd is None else _micros_of(usd)


def _micros_of(usd: float) -> int:
    return round(usd * _MICROS)
