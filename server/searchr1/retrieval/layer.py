"""The whole search layer: providers, cache and budgets, and the view that one caller has of them."""

from dataclasses import dataclass
from typing import Protocol

from searchr1.identity import ANYONE, Caller
from searchr1.retrieval.base import Found, Retriever, SearchFailed, SearchOutcome
from searchr1.retrieval.deadline import Deadline
from searchr1.retrieval.resilience.budget import BudgetedRetriever, Budgets


class Cache(Protocol):
    """A cache in front of the providers."""

    def view(self, scope: str = "", only: bool = False) -> Retriever:
        """Return the cache as ``scope`` sees it; with ``only``, it answers alone."""
        ...


@dataclass(frozen=True, slots=True)
class SearchLayer:
    """The parts that searches go through: ``budgets``, then ``cache``, then ``source``, which is all providers."""

    source: Retriever
    cache: Cache | None = None
    budgets: Budgets | None = None
    share_cache: bool = False
    """Let callers without a tenant share cached searches."""

    def view(self, caller: Caller = ANYONE, *, cache_only: bool = False) -> Retriever:
        """Return the retriever of one run. With ``cache_only`` no provider is called."""
        scope = self._cache_scope(caller)
        cached: Retriever = _NOTHING_CACHED if self.cache is None else self.cache.view(scope, only=True)
        if cache_only:
            return cached
        retriever = self.source if self.cache is None else self.cache.view(scope)
        if self.budgets is None:
            return retriever
        return _WithinBudget(BudgetedRetriever(retriever, self.budgets, caller), cached)

    def _cache_scope(self, caller: Caller) -> str:
        if caller.tenant or self.share_cache or not caller.key_id:
            return caller.tenant
        return f"key\n{caller.key_id}"  # No tenant's name holds a line break.


class _WithinBudget:
    """A ``Retriever`` that answers from the cache alone once the budget is used up."""

    def __init__(self, paid: Retriever, cached: Retriever) -> None:
        self._paid, self._cached = paid, cached

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        deadline = Deadline(deadline_s)
        outcome = await self._paid.search(query, k, deadline.left_s())
        if isinstance(outcome, SearchFailed) and outcome.kind == "budget":
            free = await self._cached.search(query, k, deadline.left_s())
            return free if isinstance(free, Found) else outcome
        return outcome


class _NothingCached:
    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        return SearchFailed("not_cached", "this server keeps no searches")


_NOTHING_CACHED = _NothingCached()
