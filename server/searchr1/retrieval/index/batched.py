"""Concurrent searches of a local index as few calls of many queries, off the event loop."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from searchr1.loop.types import Passage
from searchr1.retrieval.base import FailureKind, Found, SearchFailed, SearchOutcome
from searchr1.retrieval.deadline import timeout

logger = logging.getLogger(__name__)

SearchMany = Callable[[Sequence[str], int], Sequence[Sequence[Passage]]]
"""Takes queries and ``k``; returns up to ``k`` passages for each query, best first. Called from threads."""


@dataclass(frozen=True, slots=True, eq=False)
class _Pending:
    query: str
    k: int
    outcome: "asyncio.Future[SearchOutcome]"


class BatchedRetriever:
    """A ``Retriever`` over ``search_many``, called ``name`` in messages. Close it with ``aclose``; for one event loop.

    At most ``max_concurrent`` calls run at once, each for up to ``max_batch`` queries of one ``k``. A search that finds
    no call running starts one at once; where some are running but more may start, it first waits ``wait_s`` for others
    to join. Searches that were cancelled, or whose deadline has passed, are not in later calls.
    """

    def __init__(
        self,
        search_many: SearchMany,
        *,
        name: str,
        max_batch: int = 64,
        max_concurrent: int = 2,
        wait_s: float = 0.002,
    ) -> None:
        self._search_many, self._name = search_many, name
        self._max_batch, self._max_concurrent, self._wait_s = max_batch, max_concurrent, wait_s
        self._executor = ThreadPoolExecutor(max_concurrent, thread_name_prefix=name)
        self._pending: list[_Pending] = []
        self._workers: set[asyncio.Task[None]] = set()
        self._closed = False

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        if self._closed:
            return SearchFailed("unavailable", f"{self._name} was closed", provider=self._name)
        if not query.strip() or k < 1:
            return Found((), provider=self._name)
        pending = _Pending(query, k, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        self._start_worker()
        try:
            async with timeout(deadline_s):
                return await pending.outcome
        except TimeoutError:
            message = f"{self._name} did not answer within {deadline_s:g} s"
            return SearchFailed("timeout", message, provider=self._name)

    async def aclose(self) -> None:
        """Refuse new searches, finish those under way, and release the threads."""
        self._closed = True
        await asyncio.gather(*self._workers)
        self._executor.shutdown(wait=False)

    def _start_worker(self) -> None:
        if len(self._workers) >= self._max_concurrent:
            return
        worker = asyncio.create_task(self._work(self._wait_s if self._workers else 0.0))
        self._workers.add(worker)

    async def _work(self, wait_s: float) -> None:
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        while batch := self._take_batch():
            for pending, outcome in zip(batch, await self._outcomes(batch), strict=True):
                if not pending.outcome.done():
                    pending.outcome.set_result(outcome)
        # Not in a callback of the task: a search that came before it ran would start no worker, and wait for nothing.
        self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _outcomes(self, batch: Sequence[_Pending]) -> list[SearchOutcome]:
        queries = [pending.query for pending in batch]
        found = asyncio.get_running_loop().run_in_executor(self._executor, self._search_many, queries, batch[0].k)
        # Whatever goes wrong in the thread must reach the searches, or they would wait for their deadlines.
        [answers] = await asyncio.gather(found, return_exceptions=True)
        if isinstance(answers, BaseException):
            logger.error("searching %s met an error of the server's own", self._name, exc_info=answers)
            return [self._failed("unavailable", f"{self._name} failed: {type(answers).__name__}")] * len(batch)
        if len(answers) != len(batch):
            message = f"{self._name} answered {len(answers)} of {len(batch)} queries"
            return [self._failed("bad_response", message)] * len(batch)
        return [Found(tuple(passages), provider=self._name) for passages in answers]

    def _failed(self, kind: FailureKind, message: str) -> SearchFailed:
        return SearchFailed(kind, message, provider=self._name)

    def _take_batch(self) -> list[_Pending]:
        """Take the oldest waiting search and others of its ``k``; those nobody waits for any more are dropped."""
        waiting = [pending for pending in self._pending if not pending.outcome.done()]
        batch = [pending for pending in waiting if pending.k == waiting[0].k][: self._max_batch]
        taken = set(batch)
        self._pending = [pending for pending in waiting if pending not in taken]
        return batch
