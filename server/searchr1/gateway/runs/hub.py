"""The runs that are stored: started here, followed, resumed and cancelled from any replica.

A run is a task of the replica that took it, its owner. Its events go to a list that readers of this process follow
without delay, and in batches to the ``RunStore``, which readers elsewhere follow. The store may fail: the run goes on,
and what the store missed is written when it answers again.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, aclosing
from dataclasses import replace
from typing import Literal, Protocol

from fastapi import Request

from searchr1.gateway.access.admission import Plan
from searchr1.gateway.errors import ApiError
from searchr1.gateway.runs.drive import RunDrive
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.store.base import (
    RunForgottenError,
    RunKind,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    Wish,
)
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.runs.store.redis import RedisRunStore
from searchr1.gateway.runs.stored import StoredRun
from searchr1.gateway.services import Services
from searchr1.identity import Caller
from searchr1.redis_client import open_redis
from searchr1.settings import Settings
from searchr1_client.events import KnownEvent, Run

logger = logging.getLogger(__name__)

WhenLeft = Literal["cancel", "grace", "keep"]
"""What becomes of a run when its last reader leaves: it ends now, it ends unless one comes back, or it goes on."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FLUSH_S = 0.25
"""How often events go to the store; readers on other replicas are behind by as much."""
_HELLO_S = 1.0
_RETRY_S = 0.5
_LAST_FLUSHES = 10
"""Tries to store a run that has ended."""
_MAX_GIVEN_UP = 10_000
"""Ids of runs that could not be stored and are kept until the store answers."""


class RunHandle(Protocol):
    """A run that lives here, or one that is stored or lives elsewhere."""

    @property
    def meta(self) -> RunMeta:
        """What it is."""
        ...

    def batches(self, after: int = -1) -> AsyncGenerator[list[KnownEvent], None]:
        """Yield its events with a ``seq`` above ``after`` as they come, several at once where they have piled up.

        Ends after the terminal event, or without one where the store does not answer for long.
        """
        ...

    def frames(self, after: int = -1) -> AsyncGenerator[bytes, None]:
        """The same as Server-Sent Events."""
        ...

    async def cancel(self) -> None:
        """Have it end; returns when it has, or after a short wait where it lives elsewhere."""
        ...

    async def run(self) -> Run:
        """The run as it stands, with its trajectory once it has ended."""
        ...


async def events_of(handle: RunHandle, after: int = -1) -> AsyncGenerator[KnownEvent, None]:
    """The events of ``handle`` one by one."""
    async with aclosing(handle.batches(after)) as batches:
        async for batch in batches:
            for event in batch:
                yield event


def scope_of(caller: Caller) -> str:
    """Whose runs ``caller`` may see: its tenant's, or else its key's own."""
    return f"t:{caller.tenant}" if caller.tenant else f"k:{caller.key_id}"


class RunHub:
    """All stored runs. Use it as a context manager: leaving it ends the runs that live here."""

    def __init__(self, services: Services, store: RunStore) -> None:
        self._services, self._store = services, store
        self._replica = secrets.token_hex(8)
        self._live: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._given_up: deque[str] = deque(maxlen=_MAX_GIVEN_UP)
        self._inbox: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "RunHub":
        self._inbox = asyncio.create_task(self._serve_inbox())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end_runs()
        assert self._inbox is not None
        # Last of all: without it, other replicas would take the runs for lost.
        self._inbox.cancel()
        await asyncio.gather(self._inbox, return_exceptions=True)
        await self._store.aclose()

    async def _end_runs(self) -> None:
        """Wait for runs that need no reader, as the server does for those that have one; then end what is left."""
        if background := [live.closed.wait() for live in self._live.values() if live.outlives_readers]:
            grace_s = self._services.settings.shutdown_grace_s
            await asyncio.wait([asyncio.ensure_future(end) for end in background], timeout=grace_s)
        for live in list(self._live.values()):
            live.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LAST_FLUSHES * _RETRY_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, plan: Plan, meta: RunMeta, *, when_left: WhenLeft, store: bool = True) -> RunHandle:
        """Begin a run. Without ``store`` it can be found only while it goes on, and only on this replica.

        Raises:
            ApiError: no slot is free.
        """
        with ExitStack() as stack:
            stack.enter_context(self._services.admission.slot())
            meta = replace(meta, replica=self._replica)
            drive = RunDrive(self._services, plan, run_id=meta.id, created=meta.created, asked=meta.question)
            leave_s = {"cancel": 0.0, "grace": self._services.settings.resume_grace_s, "keep": None}[when_left]
            live = LiveRun(meta, drive, leave_s=leave_s)
            live.kept = store and self._services.settings.store_runs
            self._live[meta.id] = live
            slot = stack.pop_all()
        self._spawn(self._own(live, slot.close))
        return live

    async def find(self, run_id: str, caller: Caller, kind: RunKind) -> RunHandle:
        """The run of that id, if it is the caller's own.

        Raises:
            ApiError: there is none, or the store does not answer.
        """
        handle: RunHandle | None = self._live.get(run_id)
        if handle is None and _RUN_ID.fullmatch(run_id):
            state = await self._ask_store(run_id)
            handle = None if state is None else self._stored(state)
        if handle is None or handle.meta.scope != scope_of(caller) or handle.meta.kind != kind:
            message = f"There is no stored run {run_id[:100]!r}. It may have expired, or belong to another key."
            raise ApiError(404, message, code="run_not_found" if kind == "research" else "not_found")
        return handle

    async def list_runs(self, caller: Caller, after: str | None, limit: int) -> list[RunState]:
        """The caller's stored runs, newest first, from the one after the run ``after`` on.

        Raises:
            ApiError: there is no run ``after``, or the store does not answer.
        """
        if after is not None:
            await self.find(after, caller, "research")
        try:
            return await self._store.list_runs(scope_of(caller), after, limit)
        except RunStoreError as error:
            raise unavailable() from error

    async def delete(self, handle: RunHandle) -> None:
        """End a run and forget it. Raises ``ApiError`` where the store does not answer."""
        if isinstance(handle, StoredRun):
            await handle.forget()
        try:
            if isinstance(handle, LiveRun):
                await self._forget(handle)
            else:
                await self._store.delete(handle.meta)
        except RunStoreError as error:
            raise unavailable() from error

    async def _forget(self, live: LiveRun) -> None:
        live.kept = False
        live.end()
        await live.closed.wait()  # Nothing is written after it is forgotten.
        await self._store.delete(live.meta)

    async def _forget_for_other(self, live: LiveRun) -> None:
        """As the other replica asks, which deletes it too: but perhaps before the last of it was written."""
        try:
            await self._forget(live)
        except RunStoreError:
            self._services.metrics.run_store_errors.inc()

    def _stored(self, state: RunState) -> StoredRun:
        if state.meta.replica == self._replica:  # It does not live here any more, and can't be stored just now.
            state = replace(state, meta=replace(state.meta, replica=""))
        return StoredRun(state, self._store)

    async def _ask_store(self, run_id: str) -> RunState | None:
        try:
            return await self._store.state(run_id)
        except RunStoreError as error:
            raise unavailable() from error

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _own(self, live: LiveRun, free_slot: Callable[[], None]) -> None:
        """Drive a run to its end while its events are stored."""
        mirror = asyncio.ensure_future(self._mirror(live))
        try:
            try:
                await live.drive_to_end()
            finally:
                free_slot()
            await mirror
        finally:
            mirror.cancel()
            del self._live[live.meta.id]
            live.closed.set()

    async def _mirror(self, live: LiveRun) -> None:
        """Write a run's events to the store as they come, then its record."""
        if live.kept and not await self._has_stored(live) and live.kept:
            logger.warning("run %s was not stored: the store does not answer", live.meta.id)
            self._given_up.append(live.meta.id)

    async def _has_stored(self, live: LiveRun) -> bool:
        created, tries_left = False, _LAST_FLUSHES
        while live.kept and tries_left:
            try:
                if not created:  # At once: whoever is given the id may ask another replica for it.
                    await self._store.create(live.meta)
                    created = True
                await live.news(_FLUSH_S)
                if events := live.unstored():
                    await self._store.append(live.meta.id, events)
                    live.stored(events)
                if live.ended and not live.unstored():
                    record = live.record()
                    await self._store.finish(RunState(live.meta, record.status, record.answer), _json(record))
                    return True
            except RunStoreError as error:
                if isinstance(error, RunForgottenError):
                    created = False
                    live.store_again()
                self._services.metrics.run_store_errors.inc()
                tries_left -= live.ended
                await asyncio.sleep(_RETRY_S)
        return False

    async def _serve_inbox(self) -> None:
        """Show that this replica lives, and do what other replicas ask of it."""
        while True:
            try:
                for note in await self._store.hello(self._replica, _HELLO_S):
                    if (live := self._live.get(note.run_id)) is not None:
                        self._heed(note.wish, live)
                while self._given_up:  # Else they would pass for running wherever this replica lives.
                    await self._store.disown(self._given_up[0])
                    self._given_up.popleft()
            except RunStoreError:
                self._services.metrics.run_store_errors.inc()
                await asyncio.sleep(_RETRY_S)

    def _heed(self, wish: Wish, live: LiveRun) -> None:
        match wish:
            case "cancel":
                live.end()
            case "forget":
                self._spawn(self._forget_for_other(live))
            case "read":
                live.read_elsewhere()


def hub_of(request: Request) -> RunHub:
    """The stored runs of the app that serves ``request``."""
    hub: RunHub = request.app.state.hub
    return hub


def open_run_store(settings: Settings) -> RunStore:
    """The store that the settings ask for. It connects with its first call."""
    if settings.redis_url is None:
        return MemoryRunStore(ttl_s=settings.run_ttl_s, max_bytes=settings.run_memory_mib * 2**20)
    url = settings.redis_url.get_secret_value()
    return RedisRunStore(open_redis(url), open_redis(url), ttl_s=settings.run_ttl_s)


def _json(run: Run) -> bytes:
    return run.model_dump_json().encode()


def unavailable() -> ApiError:
    """The error for a run that lives elsewhere while the store does not answer."""
    return ApiError(503, "Stored runs can't be reached just now; try again shortly.", code="store_unavailable")
