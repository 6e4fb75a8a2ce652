"""The limits of API keys: held over all replicas by meters in Redis, and by this process's own where there is none.

This process counts along in its memory. While Redis does not answer, its own count decides: a key then has its limits
on each replica by itself, and the tokens that it spends meanwhile are told to Redis once that is back.
"""

import asyncio
import logging
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, Self

from searchr1.gateway.access.meters import LEASE_S, MeterError, OwnMeters, Standing
from searchr1.gateway.access.redis_meters import RedisMeters
from searchr1.identity import UNLIMITED, Caller
from searchr1.retrieval.resilience.budget import Budgets

logger = logging.getLogger(__name__)

_ROUND_S: Final = 0.5
_RENEW_S: Final = LEASE_S / 3
_MAX_ENDED: Final = 10_000
"""Leases that have ended and are still to be told; of more, the oldest end by themselves."""
_BUSY_RETRY_S: Final = 2.0
"""Told to a key whose runs all go on: nobody knows when one of them ends."""

Limit = Literal["requests_per_minute", "concurrent_runs", "tokens_per_day", "searches_per_window"]
_MESSAGES: Final[dict[Limit, str]] = {
    "requests_per_minute": "This API key may make {} requests a minute, and has made them.",
    "concurrent_runs": "This API key may have {} runs at once, and has them: wait until one ends.",
    "tokens_per_day": "This API key may use {} tokens in 24 hours, and has used them.",
    "searches_per_window": "This API key may search {} times in its window, and has done so.",
}


class LimitReachedError(Exception):
    """A limit of a key that is reached. ``str()`` tells people which."""

    def __init__(self, limit: Limit, most: int, retry_after_s: float, standing: Standing | None = None) -> None:
        """``retry_after_s`` is when the same request will be taken, as far as that is known."""
        super().__init__(_MESSAGES[limit].format(most))
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.standing = standing
        """Where the key stands, if that was asked."""


class Permit:
    """Leave for one run to go on. It is given back at the end of a ``with`` block."""

    def __init__(self, release: Callable[[], None] | None = None) -> None:
        self._release = release

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._release is not None:
            self._release()
            self._release = None


class KeyLimiter:
    """The limits of all keys. Use it as a context manager: leases are renewed, and spendings told, meanwhile.

    Args:
        shared: meters that other replicas count with, too.
        budgets: the search budgets, which hold limits of searches.
        on_outage: is told of each time that the shared meters did not answer.
        own: this process's meters.
    """

    def __init__(
        self,
        *,
        shared: RedisMeters | None = None,
        budgets: Budgets | None = None,
        on_outage: Callable[[], None] = lambda: None,
        own: OwnMeters | None = None,
    ) -> None:
        self._shared, self._budgets, self._on_outage = shared, budgets, on_outage
        self._own = own or OwnMeters()
        self._num_runs: Counter[str] = Counter()
        self._leases: defaultdict[str, set[str]] = defaultdict(set)
        self._ended: deque[tuple[str, str]] = deque(maxlen=_MAX_ENDED)
        self._owed_tokens: Counter[str] = Counter()
        self._due = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._shared is not None:
            self._telling = asyncio.create_task(self._keep_telling(self._shared), name="key-limits")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.gather(self._telling, return_exceptions=True)
        if self._shared is not None:
            with suppress(MeterError):
                await self._tell(self._shared)

    async def request(self, caller: Caller) -> Standing | None:
        """Count a request that begins a run or calls a tool; None for a key without limits.

        Raises:
            LimitReachedError: a limit of requests, tokens or searches is reached.
        """
        limits = caller.limits
        if limits == UNLIMITED:
            return None
        if self._budgets is not None and (spent := await self._budgets.spent_key(caller)) is not None:
            raise LimitReachedError("searches_per_window", limits.searches_per_window or 0, spent.retry_after_s)
        standing = self._own.request(caller.key_id, limits)
        if self._shared is not None:
            try:
                owed_tokens = self._owed_tokens[caller.key_id]
                standing = await self._shared.request(caller.key_id, limits, owed_tokens=owed_tokens)
            except MeterError:
                self._on_outage()
        if standing.refused is not None:
            most: int = getattr(limits, standing.refused)
            raise LimitReachedError(standing.refused, most, standing.retry_after_s, standing)
        return standing

    async def permit(self, caller: Caller) -> Permit:
        """Return leave for one more run of a key.

        Raises:
            LimitReachedError: it has as many as it may have.
        """
        most = caller.limits.concurrent_runs
        if most is None:
            return Permit()
        key_id, lease = caller.key_id, secrets.token_hex(8)
        if self._num_runs[key_id] >= most:
            raise LimitReachedError("concurrent_runs", most, _BUSY_RETRY_S)
        self._num_runs[key_id] += 1
        try:
            may_run = await self._begun(key_id, lease, most)
        except BaseException:  # Whoever asked may be cancelled while Redis takes the lease.
            self._release(key_id, lease)
            raise
        if not may_run:
            self._forget(key_id, lease)
            raise LimitReachedError("concurrent_runs", most, _BUSY_RETRY_S)
        return self._held(key_id, lease)

    def taken_over(self, caller: Caller) -> Permit:
        """Return leave for a run that another gateway had begun: it counts, and is never refused."""
        if caller.limits.concurrent_runs is None:
            return Permit()
        self._num_runs[caller.key_id] += 1
        return self._held(caller.key_id, secrets.token_hex(8))

    def spend(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of a run that has ended, or of a rewriting."""
        if caller.limits.tokens_per_day is None or not tokens:
            return
        self._own.spend(caller.key_id, tokens)
        if self._shared is not None:
            self._owed_tokens[caller.key_id] += tokens
            self._due.set()

    async def _begun(self, key_id: str, lease: str, most: int) -> bool:
        if self._shared is None:
            return True
        try:
            return await self._shared.begin_run(key_id, lease, most)
        except MeterError:
            self._on_outage()
            return True

    def _held(self, key_id: str, lease: str) -> Permit:
        self._leases[key_id].add(lease)
        return Permit(lambda: self._release(key_id, lease))

    def _release(self, key_id: str, lease: str) -> None:
        """Forget a run whose lease Redis may hold, and have that ended."""
        self._forget(key_id, lease)
        if self._shared is not None:
            self._ended.append((key_id, lease))
            self._due.set()

    def _forget(self, key_id: str, lease: str) -> None:
        self._num_runs[key_id] -= 1
        if not self._num_runs[key_id]:
            del self._num_runs[key_id]
        self._leases[key_id].discard(lease)
        if not self._leases[key_id]:
            del self._leases[key_id]

    async def _keep_telling(self, shared: RedisMeters) -> None:
        loop = asyncio.get_running_loop()
        renewed_s = float("-inf")
        while True:
            try:
                began_s = loop.time()
                if began_s - renewed_s >= _RENEW_S:
                    await self._renew(shared)
                    renewed_s = began_s
                await self._tell(shared)
            except MeterError:
                pass  # The log was told of it, and it is tried again.
            except Exception:  # Without it, the runs of this gateway would count nowhere else any more.
                logger.exception("the count of keys' limits met an error of the server's own")
            self._due.clear()
            if not self._ended and not self._owed_tokens:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ROUND_S):
                        await self._due.wait()
            else:
                await asyncio.sleep(_ROUND_S)

    async def _renew(self, shared: RedisMeters) -> None:
        for key_id in list(self._leases):
            if leases := self._leases.get(key_id):
                await shared.renew_runs(key_id, list(leases))

    async def _tell(self, shared: RedisMeters) -> None:
        """Tell of tokens that were spent, and of leases that have ended."""
        for key_id, tokens in list(self._owed_tokens.items()):
            await shared.spend(key_id, tokens)
            self._owed_tokens[key_id] -= tokens
            if not self._owed_tokens[key_id]:
                del self._owed_tokens[key_id]
        ended: defaultdict[str, list[str]] = defaultdict(list)
        for key_id, lease in self._ended:
            ended[key_id].append(lease)
        self._ended.clear()
        while ended:
            key_id, leases = ended.popitem()
            try:
                await shared.end_runs(key_id, leases)
            except BaseException:
                ended[key_id] = leases
                self._ended.extend((each, lease) for each, many in ended.items() for lease in many)
                raise
