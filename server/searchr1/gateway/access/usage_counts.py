"""What keys are used for: counted as it happens, and stored every few seconds."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Self

from searchr1.identity import Caller
from searchr1.keyring.usage import Usage, UsageError, UsageStore
from searchr1.redis_client import Outages

logger = logging.getLogger(__name__)

STORE_EVERY_S: Final = 2.0
_ANSWER_S: Final = 2.0


class UsageCounts:
    """The usage of all keys. Use it as a context manager: it is stored meanwhile. ``now`` gives Unix time."""

    def __init__(self, store: UsageStore, *, now: Callable[[], float] = time.time) -> None:
        self._store, self._now = store, now
        self._pending: dict[str, Usage] = {}
        self._storing: asyncio.Task[None] | None = None
        self._outages = Outages("The usage of keys", logger)

    async def __aenter__(self) -> Self:
        self._storing = asyncio.create_task(self._keep_storing(), name="key-usage")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._storing is not None:
            self._storing.cancel()
            await asyncio.gather(self._storing, return_exceptions=True)
        await self._flush()

    def requested(self, caller: Caller) -> None:
        """Count a request that a key opened."""
        self._add(caller, Usage(requests=1, last_used_at=int(self._now())))

    def ran(self, caller: Caller, *, tokens_in: int, tokens_out: int, searches: int) -> None:
        """Count a run that has ended."""
        self._add(caller, Usage(runs=1, tokens_in=tokens_in, tokens_out=tokens_out, searches=searches))

    def rewrote(self, caller: Caller, *, tokens_in: int, tokens_out: int) -> None:
        """Count what rewriting a run's question took."""
        self._add(caller, Usage(tokens_in=tokens_in, tokens_out=tokens_out))

    def searched(self, caller: Caller) -> None:
        """Count a search outside of a run."""
        self._add(caller, Usage(searches=1))

    async def read(self) -> dict[str, Usage]:
        """Return all usage by the ids of keys, of all replicas where they share a store.

        Raises:
            UsageError: the store does not answer.
        """
        await self._flush()
        return await self._store.read()

    def _add(self, caller: Caller, usage: Usage) -> None:
        if caller.key_id:
            self._pending[caller.key_id] = self._pending.get(caller.key_id, Usage()) + usage

    async def _keep_storing(self) -> None:
        while True:
            await asyncio.sleep(STORE_EVERY_S)
            try:
                await self._flush()
            except Exception:  # Without it, nothing would be stored any more until the end.
                logger.exception("the usage of keys met an error of the server's own")

    async def _flush(self) -> None:
        """Store what is pending; what can't be stored stays."""
        if not self._pending:
            return
        pending, self._pending = self._pending, {}
        is_stored = False
        try:
            async with asyncio.timeout(_ANSWER_S):
                await self._store.add(pending)
            is_stored = True
            self._outages.worked("store")
        except (UsageError, TimeoutError) as error:
            self._outages.failed("store", str(error) or "it does not answer")
        finally:
            if not is_stored:  # It may have been cancelled, too.
                for key_id, usage in self._pending.items():
                    pending[key_id] = pending.get(key_id, Usage()) + usage
                self._pending = pending
