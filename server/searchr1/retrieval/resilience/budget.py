"""Search budgets: how many searches, or dollars, an API key and a tenant may spend in a window.

A search reserves its place in all of its budgets before it is sent, at the dearest price, so that concurrent searches
cannot pass a limit together; once its outcome is known the reservation becomes what it really cost.

* From the cache (``hit``, ``stale``): nothing. The refresh behind a stale answer is charged to nobody.
* A ``miss``: one search, at the price of the provider that answered. Retries, hedges and providers that failed earlier
  in a chain are not added.
* ``timeout`` and ``bad_response``: charged like a miss, since the provider may have answered, and billed it.
  Other failures: nothing.
* A search that is cancelled keeps its reservation, for the same reason.

While counters that replicas share cannot be reached, each replica goes by its own count (``CountedAlong``).
"""

from dataclasses import dataclass
from typing import Protocol

from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.deadline import Deadline
from searchr1.retrieval.resilience.counted_along import CountedAlong
from searchr1.retrieval.resilience.counters import MemoryCounters, Quota, Refused, Spend

_MICROS = 1_000_000
_BILLED_FAILURES = frozenset({"timeout", "bad_response"})


class Account(Protocol):
    """The payer. Neither name is a secret; keys without an id, and callers without a tenant, share one budget."""

    @property
    def tenant(self) -> str:
        """Name of the tenant."""

    @property
    def key_id(self) -> str:
        """Name of the API key, which is not the key itself."""

    @property
    def searches_per_window(self) -> int | None:
        """The key's own limit, which replaces the one of all keys."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A place in the budgets, to be given back to ``Budgets.settle``."""

    keys: tuple[str, ...]
    usd: float


class Budgets:
    """The budgets of all keys and tenants, counted in ``store``."""

    def __init__(self, store: CountedAlong | MemoryCounters, config: BudgetConfig, *, observer: SearchObserver) -> None:
        self._store, self._config, self._observer = store, config, observer

    async def reserve(self, account: Account) -> Reservation | SearchFailed:
        """Take a place for one search in the budgets of ``account``, or say which of them is used up."""
        usd = self._config.highest_usd()
        quotas = self._quotas(account)
        if not quotas:
            return Reservation((), usd)
        refused = await self._store.reserve(quotas, Spend(1, _micros_of(usd)), self._config.window_s)
        if refused is not None:
            return self._refusal(refused)
        return Reservation(tuple(quota.key for quota in quotas), usd)

    async def spent_key(self, account: Account) -> Refused | None:
        """Return whether the key's own limit of searches is used up, and until when. One of all keys is not asked."""
        if account.searches_per_window is None:
            return None
        return await self._store.refusal(self._quotas(account)[:1], Spend(1, 0), self._config.window_s)

    async def settle(self, reservation: Reservation, outcome: SearchOutcome) -> None:
        """Turn the reservation into what ``outcome`` cost."""
        billed = outcome.cache == "miss" if isinstance(outcome, Found) else outcome.kind in _BILLED_FAILURES
        usd = self._config.usd(outcome.provider) if billed else 0.0
        if billed:
            self._observer.cost(outcome.provider, usd)
        change = Spend(0 if billed else -1, _micros_of(usd) - _micros_of(reservation.usd))
        if reservation.keys and change != Spend(0, 0):
            await self._store.adjust(reservation.keys, change)

    def _quotas(self, account: Account) -> list[Quota]:
        config = self._config
        own = account.searches_per_window
        quotas = [
            Quota(
                "key",
                _counter_key(account.tenant, f"key:{account.key_id}"),
                config.per_key if own is None else own,
                _micros(config.usd_per_key),
            ),
            Quota("tenant", _counter_key(account.tenant, "tenant"), config.per_tenant, _micros(config.usd_per_tenant)),
        ]
        return [quota for quota in quotas if quota.searches is not None or quota.micros is not None]

    def _refusal(self, refused: Refused) -> SearchFailed:
        self._observer.budget_refused(refused.scope)
        message = f"the search budget of this {refused.scope.replace('key', 'API key')} is used up"
        return SearchFailed("budget", message, refused.retry_after_s)


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
    """Return the store's key. All counters of a tenant share a hash tag, and so a slot of a Redis Cluster.

    Redis takes no notice of an empty tag, hence the ``t:``: callers without a tenant have the empty one.
    """
    tag = tenant.replace("{", "(").replace("}", ")")
    return f"searchr1:budget:{{t:{tag}}}:{name}"


def _micros(usd: float | None) -> int | None:
    return None if usd is None else _micros_of(usd)


def _micros_of(usd: float) -> int:
    return round(usd * _MICROS)
