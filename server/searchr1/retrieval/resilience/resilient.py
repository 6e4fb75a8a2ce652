"""One provider behind retries (stamina), a bounded rate (aiolimiter) and a circuit breaker.

Whatever happens ends as a ``SearchOutcome`` before the deadline. Retries wait for as long as the provider asks where
that fits into the time left, and end the search where it does not.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import stamina
from aiolimiter import AsyncLimiter

from searchr1.breaker import Breaker, CallResult
from searchr1.retrieval.base import FailureKind, Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.config import ResilienceConfig
from searchr1.retrieval.deadline import Deadline, search_within, timeout

MIN_ATTEMPT_S = 0.05
"""No call begins with less time than this."""
MAX_COOLDOWN_S = 60.0
"""Longest time for which a provider's ``Retry-After`` keeps other searches away from it."""
UNAUTHORIZED_RESET_S = 300.0
"""Time for which the circuit stays open after the provider refused our key or plan."""
_BACKOFF_INITIAL_S, _BACKOFF_MAX_S = 0.1, 2.0
"""The wait before retry n is drawn from the upper half of ``min(_BACKOFF_MAX_S, _BACKOFF_INITIAL_S * 2**(n-1))``."""
_MIN_TELLING_TIMEOUT_S = 1.0
"""A call that had less time than this and timed out says nothing of the provider."""
_RETRIED: frozenset[FailureKind] = frozenset({"timeout", "unavailable", "rate_limited", "bad_response"})
_ACCOUNT_STATUSES = frozenset({401, 402, 403, 432, 433})
"""Statuses that refuse the key or the plan; 432 and 433 are Tavily's."""


def refuses_our_account(failure: SearchFailed) -> bool:
    """Tell whether the provider refused the key or the plan, and so would refuse every later search too."""
    return failure.kind == "rejected" and failure.status in _ACCOUNT_STATUSES


@dataclass(slots=True)
class _Search:
    query: str
    k: int
    deadline: Deadline
    attempt: int = 0
    calls: int = 0


class _FailedError(Exception):
    """A ``SearchFailed`` on its way through stamina. ``final`` ones are not retried."""

    def __init__(self, outcome: SearchFailed, *, final: bool = False) -> None:
        super().__init__(outcome.message)
        self.outcome, self.final = outcome, final


class ResilientRetriever:
    """A ``Retriever`` around the provider ``inner``. Make one per provider and key, for one event loop.

    ``name`` stands in messages, metrics and outcomes. ``attempt_timeout_s`` bounds one call; without it a call may take
    all the time left, and none is left to retry a timeout. ``jitter`` draws from [0, 1).
    """

    def __init__(
        self,
        inner: Retriever,
        *,
        name: str,
        config: ResilienceConfig,
        observer: SearchObserver,
        attempt_timeout_s: float | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner, self.name, self._observer, self._jitter = inner, name, observer, jitter
        self._attempts, self._attempt_timeout_s = config.attempts, attempt_timeout_s
        self._slots = asyncio.Semaphore(config.max_concurrent)
        self._limiter = None if config.rate_per_s is None else AsyncLimiter(1, 1 / config.rate_per_s)
        self._cooldown: Deadline | None = None
        self._breaker = Breaker(
            failures=config.breaker_failures,
            reset_s=config.breaker_reset_s,
            unauthorized_reset_s=UNAUTHORIZED_RESET_S,
            on_change=lambda state: observer.breaker(name, state),
            clock=_loop_time_s,
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        search = _Search(query, k, Deadline(deadline_s))
        attempts = stamina.retry_context(
            on=lambda error: self._retry_in_s(error, search), attempts=self._attempts, timeout=None
        )
        try:
            async for attempt in attempts:
                with attempt:
                    search.attempt = attempt.num
                    return await self._attempt(search)
        except _FailedError as failed:
            return failed.outcome
        raise AssertionError("stamina ended without an outcome")

    def _retry_in_s(self, error: BaseException, search: _Search) -> float | bool:
        """Return the seconds until the next attempt, or False for none. stamina asks after the last one too."""
        if not isinstance(error, _FailedError) or error.final or error.outcome.kind not in _RETRIED:
            return False
        longest_s = min(_BACKOFF_MAX_S, _BACKOFF_INITIAL_S * 2.0 ** (search.attempt - 1))
        delay_s = longest_s * (1 + self._jitter()) / 2 + (error.outcome.retry_after_s or 0.0)
        return delay_s if search.deadline.left_s() - delay_s >= MIN_ATTEMPT_S else False

    async def _attempt(self, search: _Search) -> Found:
        """Make one call when its turn comes; raise ``_FailedError`` for anything but passages."""
        if (cooldown_s := self._cooldown_s()) > 0:
            message = f"{self.name} asked to be left alone for {cooldown_s:.3g} s more"
            raise _FailedError(SearchFailed("rate_limited", message, cooldown_s, self.name))
        if self._breaker.open_for_s() > 0:
            raise self._circuit_open()
        if not await self._wait_for_turn(search.deadline):
            message = f"{self.name} could not be called in time"
            raise _FailedError(SearchFailed("timeout", message, provider=self.name), final=True)
        try:
            outcome = await self._guarded_call(search)
        finally:
            self._slots.release()
        if isinstance(outcome, SearchFailed):
            raise _FailedError(outcome, final=self._breaker.state == "open")
        return outcome

    async def _wait_for_turn(self, deadline: Deadline) -> bool:
        """Take a slot and a place in the rate, unless that leaves too little time for a call."""
        if deadline.left_s() < MIN_ATTEMPT_S:
            return False
        try:
            async with timeout(deadline.left_s() - MIN_ATTEMPT_S):
                await self._slots.acquire()
                try:
                    if self._limiter is not None:
                        await self._limiter.acquire()
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError:
            return False
        return True

    async def _guarded_call(self, search: _Search) -> SearchOutcome:
        period = self._breaker.allow()
        if period is None:
            raise self._circuit_open()
        result: CallResult = "cancelled"
        try:
            allowed_s = min(search.deadline.left_s(), self._attempt_timeout_s or search.deadline.left_s())
            outcome = await self._observed_call(search, allowed_s)
            result = _result(outcome, allowed_s)
        finally:
            self._breaker.record(period, result)
        return outcome

    async def _observed_call(self, search: _Search, allowed_s: float) -> SearchOutcome:
        search.calls += 1
        if search.calls > 1:
            self._observer.retry(self.name)
        began_s, seen = _loop_time_s(), "cancelled"
        try:
            outcome = await search_within(self._inner, search.query, search.k, allowed_s, self.name)
            outcome = outcome if outcome.provider else replace(outcome, provider=self.name)
            seen = _seen(outcome)
        finally:
            self._observer.attempt(self.name, seen, _loop_time_s() - began_s)
        if isinstance(outcome, SearchFailed) and outcome.kind == "rate_limited" and outcome.retry_after_s:
            self._cooldown = Deadline(min(outcome.retry_after_s, MAX_COOLDOWN_S))
        return outcome

    def _cooldown_s(self) -> float:
        return 0.0 if self._cooldown is None else self._cooldown.left_s()

    def _circuit_open(self) -> _FailedError:
        open_for_s = self._breaker.open_for_s()
        message = f"{self.name} is not called: its circuit is open after failures"
        return _FailedError(SearchFailed("unavailable", message, open_for_s or None, self.name), final=True)


def _result(outcome: SearchOutcome, allowed_s: float) -> CallResult:
    """Return what a call that had ``allowed_s`` seconds tells the breaker."""
    if isinstance(outcome, Found):
        return "success"
    if outcome.kind == "rejected":
        return "unauthorized" if refuses_our_account(outcome) else "success"
    if outcome.kind not in _RETRIED or (outcome.kind == "timeout" and allowed_s < _MIN_TELLING_TIMEOUT_S):
        return "cancelled"
    return "failure"


def _seen(outcome: SearchOutcome) -> str:
    if isinstance(outcome, SearchFailed):
        return outcome.kind
    return "found" if outcome.passages else "empty"


def _loop_time_s() -> float:
    return asyncio.get_running_loop().time()
