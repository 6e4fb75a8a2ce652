"""One provider, called with care: retried (stamina), at a bounded rate (aiolimiter), behind a circuit breaker.

Whatever happens ends as a ``SearchOutcome`` before the deadline. Retries wait for what the provider asks where that
fits into the time left, and end the search where it does not.
"""

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import stamina
from aiolimiter import AsyncLimiter

from searchr1.retrieval.base import FailureKind, Found, Retriever, SearchFailed, SearchObserver, SearchOutcome
from searchr1.retrieval.deadline import Deadline, search_within, timeout
from searchr1.retrieval.resilience.breaker import Breaker, Verdict

_RETRIED: frozenset[FailureKind] = frozenset({"timeout", "unavailable", "rate_limited", "bad_response"})
_STATUS = re.compile(r"\bHTTP (\d+)")
_ACCOUNT_STATUSES = frozenset({"401", "402", "403", "432", "433"})


def refuses_our_account(failure: SearchFailed) -> bool:
    """Tell whether the first ``HTTP …`` of the message refuses the key or the plan, and so every later search too."""
    status = _STATUS.search(failure.message)
    return failure.kind == "rejected" and status is not None and status[1] in _ACCOUNT_STATUSES


@dataclass(frozen=True, slots=True)
class ResiliencePolicy:
    """What a provider, and a search of it, may be put through."""

    attempts: int = 3
    """Calls per search, retries included."""
    min_attempt_s: float = 0.05
    """No call begins with less time than this."""
    attempt_timeout_s: float | None = None
    """Bound of one call; without it a call may take all the time left, and none is left to retry a timeout."""
    backoff_initial_s: float = 0.1
    backoff_max_s: float = 2.0
    """The wait before retry n is drawn from the upper half of ``min(backoff_max_s, backoff_initial_s * 2**(n-1))``."""
    quiet_max_s: float = 60.0
    """Longest time for which a provider's ``Retry-After`` keeps other searches away from it."""
    breaker_failures: int = 5
    """Failures in a row after which the circuit opens; timeouts count if the call had ``breaker_patience_s``."""
    breaker_patience_s: float = 1.0
    breaker_reset_s: float = 30.0
    """Rest of the provider before one search probes it."""
    account_reset_s: float = 300.0
    """The same after it refused our key or our plan, which opens the circuit at once."""
    refuses_account: Callable[[SearchFailed], bool] = refuses_our_account
    max_concurrent: int = 64
    """Calls at once."""
    rate_per_s: float | None = None
    """Calls per second, evenly spaced but for ``rate_burst``."""
    rate_burst: float = 1.0


@dataclass(slots=True)
class _Run:
    query: str
    k: int
    deadline: Deadline
    attempt: int = 0
    calls: int = 0


class _FailedError(Exception):
    """Carries a ``SearchFailed`` through stamina. ``final`` ones are not retried."""

    def __init__(self, outcome: SearchFailed, *, final: bool = False) -> None:
        super().__init__(outcome.message)
        self.outcome, self.final = outcome, final


class ResilientRetriever:
    """A ``Retriever`` around the provider ``inner``. Make one per provider and key, for one event loop.

    ``name`` stands in messages, metrics and outcomes. ``jitter`` draws from [0, 1).
    """

    def __init__(
        self,
        inner: Retriever,
        *,
        name: str,
        policy: ResiliencePolicy,
        observer: SearchObserver,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._inner, self.name, self._policy, self._observer, self._jitter = inner, name, policy, observer, jitter
        self._slots = asyncio.Semaphore(policy.max_concurrent)
        self._limiter = _limiter(policy)
        self._quiet: Deadline | None = None
        self._breaker = Breaker(
            name,
            failures=policy.breaker_failures,
            reset_s=policy.breaker_reset_s,
            refused_reset_s=policy.account_reset_s,
            on_change=lambda state: observer.breaker(name, state),
        )

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        run = _Run(query, k, Deadline(deadline_s))
        attempts = stamina.retry_context(
            on=lambda error: self._retry_in_s(error, run), attempts=self._policy.attempts, timeout=None
        )
        try:
            async for attempt in attempts:
                with attempt:
                    run.attempt = attempt.num
                    return await self._attempt(run)
        except _FailedError as failed:
            return failed.outcome
        raise AssertionError("stamina ended without an outcome")

    def _retry_in_s(self, error: BaseException, run: _Run) -> float | bool:
        """Seconds to wait before the next attempt, or False for none. stamina asks after the last attempt too."""
        if not isinstance(error, _FailedError) or error.final or error.outcome.kind not in _RETRIED:
            return False
        policy = self._policy
        longest_s = min(policy.backoff_max_s, policy.backoff_initial_s * 2.0 ** (run.attempt - 1))
        delay_s = longest_s * (1 + self._jitter()) / 2 + (error.outcome.retry_after_s or 0.0)
        return delay_s if run.deadline.left_s() - delay_s >= policy.min_attempt_s else False

    async def _attempt(self, run: _Run) -> Found:
        """Make one call when its turn comes; raise ``_FailedError`` for anything but passages."""
        if (quiet_s := self._quiet_s()) > 0:
            message = f"{self.name} asked to be left alone for {quiet_s:.3g} s more"
            raise _FailedError(SearchFailed("rate_limited", message, quiet_s, self.name))
        if self._breaker.open_for_s() > 0:
            raise self._circuit_open()
        if not await self._wait_for_turn(run.deadline):
            message = f"{self.name} could not be called in time"
            raise _FailedError(SearchFailed("timeout", message, provider=self.name), final=True)
        try:
            outcome = await self._guarded_call(run)
        finally:
            self._slots.release()
        if isinstance(outcome, SearchFailed):
            raise _FailedError(outcome, final=self._breaker.state == "open")
        return outcome

    async def _wait_for_turn(self, deadline: Deadline) -> bool:
        """Take a slot and a place in the rate, unless that leaves too little time for a call."""
        min_attempt_s = self._policy.min_attempt_s
        if deadline.left_s() < min_attempt_s:
            return False
        try:
            async with timeout(deadline.left_s() - min_attempt_s):
                await self._slots.acquire()
                try:
                    await self._take_rate()
                except BaseException:
                    self._slots.release()
                    raise
        except TimeoutError:
            return False
        return True

    async def _take_rate(self) -> None:
        if self._limiter is not None:
            await self._limiter.acquire()

    async def _guarded_call(self, run: _Run) -> SearchOutcome:
        admitted = self._breaker.admit()
        if admitted is None:
            raise self._circuit_open()
        verdict: Verdict = "unknown"
        try:
            allowed_s = min(run.deadline.left_s(), self._policy.attempt_timeout_s or run.deadline.left_s())
            outcome = await self._observed_call(run, allowed_s)
            verdict = self._verdict(outcome, allowed_s)
        finally:
            self._breaker.settle(admitted, verdict)
        return outcome

    async def _observed_call(self, run: _Run, allowed_s: float) -> SearchOutcome:
        run.calls += 1
        if run.calls > 1:
            self._observer.retry(self.name)
        loop = asyncio.get_running_loop()
        began_s, seen = loop.time(), "cancelled"
        try:
            outcome = await search_within(self._inner, run.query, run.k, allowed_s, self.name)
            outcome = outcome if outcome.provider else replace(outcome, provider=self.name)
            seen = _seen(outcome)
        finally:
            self._observer.attempt(self.name, seen, loop.time() - began_s)
        if isinstance(outcome, SearchFailed) and outcome.kind == "rate_limited" and outcome.retry_after_s:
            self._quiet = Deadline(min(outcome.retry_after_s, self._policy.quiet_max_s))
        return outcome

    def _verdict(self, outcome: SearchOutcome, allowed_s: float) -> Verdict:
        if isinstance(outcome, Found):
            return "passed"
        if outcome.kind == "rejected":
            return "refused" if self._policy.refuses_account(outcome) else "passed"
        if outcome.kind not in _RETRIED or (outcome.kind == "timeout" and allowed_s < self._policy.breaker_patience_s):
            return "unknown"
        return "failed"

    def _quiet_s(self) -> float:
        return 0.0 if self._quiet is None else self._quiet.left_s()

    def _circuit_open(self) -> _FailedError:
        rest_s = self._breaker.open_for_s()
        message = f"{self.name} is not called: its circuit is open after failures"
        return _FailedError(SearchFailed("unavailable", message, rest_s or None, self.name), final=True)


def _seen(outcome: SearchOutcome) -> str:
    if isinstance(outcome, SearchFailed):
        return outcome.kind
    return "found" if outcome.passages else "empty"


def _limiter(policy: ResiliencePolicy) -> AsyncLimiter | None:
    if policy.rate_per_s is None:
        return None
    burst = max(policy.rate_burst, 1.0)
    return AsyncLimiter(burst, burst / policy.rate_per_s)
