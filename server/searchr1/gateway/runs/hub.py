"""The hub: stored runs, started here; followed, resumed and cancelled from any replica.

A run is a task of the replica that took it, its owner. Its events go to a list that readers of this process follow
without delay, and in batches to the ``RunStore``, which readers elsewhere follow. The store may fail: the run goes on,
and what the store missed is written when it answers again.
"""

import asyncio
import logging
import re
import secrets
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Literal

from searchr1.driver import DriveStats
from searchr1.gateway.access.admission import Plan
from searchr1.gateway.access.stored_plan import encode_plan
from searchr1.gateway.log_lines import RUN_ID
from searchr1.gateway.runs.drive import RunDrive, seat_of, trace_of
from searchr1.gateway.runs.errors import RunNotFoundError, RunsUnreachableError
from searchr1.gateway.runs.hand_over import HandOver, sort_of_runs
from searchr1.gateway.runs.handle import RunHandle
from searchr1.gateway.runs.idempotency import IdempotencyKeys
from searchr1.gateway.runs.journal import Journal
from searchr1.gateway.runs.live import LiveRun
from searchr1.gateway.runs.mirror import LAST_FLUSHES, RETRY_S, Mirror
from searchr1.gateway.runs.store.base import (
    Message,
    RunForgottenError,
    RunKind,
    RunMeta,
    RunState,
    RunStore,
    RunStoreError,
    RunUnreadableError,
)
from searchr1.gateway.runs.stored import StoredRun
from searchr1.gateway.runs.takeover import Takeovers, stored_plan_of
from searchr1.gateway.services import Services
from searchr1.identity import Caller
from searchr1.trace_context import TRACE_HEADERS

logger = logging.getLogger(__name__)

Operation = Literal["write", "heartbeat"]
OnDisconnect = Literal["cancel", "grace", "keep"]
"""Fate of a run whose last reader leaves: it ends now, it ends unless a reader comes back, or it goes on."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEARTBEAT_S = 1.0
_PARTING_S = 1.0
_MAX_NOTED = 10_000
"""Unreadable runs that are told to the log once each."""
_ABANDONED_PER_BEAT = 50
_MAX_ABANDONED = 10_000
"""Runs that could not be stored and are kept until the store answers."""


def scope_of(caller: Caller) -> str:
    """Return the scope of the runs that ``caller`` may see: its tenant's, or else its key's own."""
    return f"t:{caller.tenant}" if caller.tenant else f"k:{caller.key_id}"


def _scopes_of(caller: Caller) -> tuple[str, ...]:
    """Return ``scope_of``, and the one that the release before gave the same key."""
    return scope_of(caller), *((f"k:{caller.former_key_id}",) if caller.key_id and not caller.tenant else ())


class RunHub:
    """All stored runs. Use it as a context manager: leaving it ends the runs of this replica."""

    def __init__(self, services: Services, store: RunStore) -> None:
        self._services, self._store = services, store
        self._replica = secrets.token_hex(8)
        self._live: dict[str, LiveRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._abandoned: deque[RunMeta] = deque(maxlen=_MAX_ABANDONED)
        self._noted: dict[str, None] = {}
        self._failing: set[Operation] = set()
        self._sorts: dict[str, str] = {}
        self._inbox: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._closing = self._is_leaving = False
        self._takeovers = Takeovers(
            services, store, self._replica, live=self._own_run, adopt=self._adopt, on_failure=self._unanswered
        )
        self._hand_over = HandOver(store, self._replica, sort_of=self._sort_of, on_failure=self._unanswered)
        self._mirror = Mirror(
            store,
            self._hand_over,
            on_worked=partial(self._store_worked, "write"),
            on_failed=partial(self._store_failed, "write"),
            abandon=self._abandoned.append,
        )
        self.keys = IdempotencyKeys(store, ttl_s=services.settings.run_ttl_s, on_failure=self._unanswered)
        """Idempotency keys and the runs that they started."""

    async def __aenter__(self) -> "RunHub":
        self._inbox = asyncio.create_task(self._serve_inbox())
        if self._store.is_shared:
            self._looking = asyncio.create_task(self._takeovers.look_around(), name="takeovers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._looking is not None:  # Nothing is begun any more.
            self._looking.cancel()
            await asyncio.wait((self._looking,), timeout=LAST_FLUSHES * RETRY_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSHES * RETRY_S):
                    await self._takeovers.settled()
        await self._end_runs()
        assert self._inbox is not None
        # Last of all: without heartbeats, other replicas would take the runs for lost.
        self._closing = True
        self._inbox.cancel()
        await asyncio.gather(self._inbox, return_exceptions=True)
        with suppress(RunStoreError, TimeoutError):  # The lease ends by itself as well.
            async with asyncio.timeout(_PARTING_S):
                await self._store.depart(self._replica)
        await self._store.aclose()

    async def stop_taking(self) -> None:
        """Tell other replicas that this one stops, so that none leaves its runs to it."""
        self._is_leaving = True
        await self._hand_over.announce()

    async def leave(self, *, unread_only: bool = False) -> None:
        """Hand over to other replicas what they would take of the runs here, or of those that nobody here reads.

        On return they are not driven here any more; their readers are told to come back once another one has them.
        """
        if any(live.may_leave for live in self._live.values()):
            await self._hand_over.announced()
        runs = [live for live in self._live.values() if live.may_leave and not (unread_only and live.is_read)]
        await self._hand_over.begin(runs)

    async def _end_runs(self) -> None:
        """Hand runs over; wait for those that need no reader, as the server does for others; end what is left."""
        await self.leave(unread_only=True)
        if background := [live.closed.wait() for live in self._live.values() if live.outlives_readers]:
            grace_s = self._services.settings.shutdown_grace_s
            await asyncio.wait([asyncio.ensure_future(end) for end in background], timeout=grace_s)
        for live in list(self._live.values()):
            if not live.is_leaving:
                live.end()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_FLUSHES * RETRY_S)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def start(self, plan: Plan, meta: RunMeta, *, on_disconnect: OnDisconnect, store: bool = True) -> LiveRun:
        """Begin a run. Without ``store`` it can be found only while it goes on, and only on this replica.

        Raises:
            NoSlotError: no seat is free, and the queue is full.
            LimitReachedError: the caller's key has as many runs as it may have.
        """
        permit = await self._services.access.limits.permit(plan.caller)
        with ExitStack() as stack:
            stack.enter_context(permit)
            seat = stack.enter_context(seat_of(self._services, plan))
            meta = replace(meta, replica=self._replica)
            RUN_ID.set(meta.id)
            leave_s = {"cancel": 0.0, "grace": self._services.settings.resume_grace_s, "keep": None}[on_disconnect]
            kept = store and self._services.settings.store_runs
            is_shared = kept and self._store.is_shared
            stats, journal, stored = DriveStats(), None, None
            trace = trace_of(self._services, plan, stats, run_id=meta.id)
            # A run that ends with its connection has nobody to come back to it.
            if is_shared and leave_s != 0.0:
                journal = Journal(stats)
                traceparent = TRACE_HEADERS.get().get("traceparent", "") if trace is None else trace.traceparent
                stored = encode_plan(stored_plan_of(plan, grace_s=leave_s, traceparent=traceparent))
            drive = RunDrive(
                self._services,
                plan,
                seat,
                run_id=meta.id,
                created=meta.created,
                asked=meta.question,
                stats=stats,
                journal=journal,
                trace=trace,
            )
            live = LiveRun(meta, drive, leave_s=leave_s, journal=journal, plan=stored, is_shared=is_shared)
            live.kept = kept
            self._adopt(live, stack.pop_all().close)
        return live

    async def find(self, run_id: str, caller: Caller, kind: RunKind) -> RunHandle:
        """Return the run of that id, if it is the caller's own.

        Raises:
            RunNotFoundError: there is none.
            RunUnreadableError: it is the caller's own, but can't be read.
            RunsUnreachableError: the store does not answer.
        """
        handle: RunHandle | None = self._own_run(run_id)
        if handle is None and _RUN_ID.fullmatch(run_id):
            try:
                state = await self._ask_store(run_id)
            except RunUnreadableError as error:
                self.note(error)
                if not await self._owns_unreadable(error, caller, kind):
                    raise RunNotFoundError(run_id) from error
                raise
            if state is not None and state.status == "running" and state.meta.replica == self._replica:
                handle = await self._takeovers.own(run_id)  # It may have been taken over since it was looked for.
            if handle is None and state is not None:
                handle = self._stored(state)
        if handle is None or handle.meta.scope not in _scopes_of(caller) or handle.meta.kind != kind:
            raise RunNotFoundError(run_id)
        RUN_ID.set(run_id)
        return handle

    async def list_runs(self, caller: Caller, after: str | None, limit: int) -> list[RunState]:
        """Return the caller's stored runs, newest first, from the one after the run ``after`` on.

        Runs that can't be read are passed over.

        Raises:
            RunNotFoundError: there is no run ``after``.
            RunsUnreachableError: the store does not answer.
        """
        if after is not None:
            with suppress(RunUnreadableError):
                await self.find(after, caller, "research")
        try:
            return await self._store.list_runs(scope_of(caller), after, limit, self.note)
        except RunStoreError as error:
            raise self._unreachable(error) from error

    async def delete(self, run_id: str, caller: Caller, kind: RunKind) -> None:
        """End the run of that id and forget it, even if it can't be read.

        Raises:
            RunNotFoundError: the caller has none.
            RunsUnreachableError: the store does not answer.
        """
        try:
            handle: RunHandle | None = await self.find(run_id, caller, kind)
            if isinstance(handle, StoredRun):
                await handle.forget()
                handle = self._live.get(run_id, handle)  # Its owner was gone, so it was taken over to be ended.
        except RunUnreadableError:
            handle = None
        try:
            if isinstance(handle, LiveRun):
                await self._forget(handle)
            elif handle is not None:
                await self._store.delete(handle.meta)
            else:
                scope = scope_of(caller)
                await self._store.delete(RunMeta(run_id, kind, created=0, model="", question="", scope=scope))
        except RunStoreError as error:
            raise self._unreachable(error) from error

    def note(self, error: RunUnreadableError) -> None:
        """Tell the log about a run that can't be read, once."""
        if error.run_id in self._noted:
            return
        if len(self._noted) >= _MAX_NOTED:
            del self._noted[next(iter(self._noted))]
        self._noted[error.run_id] = None
        logger.warning("%s", error)

    async def _owns_unreadable(self, error: RunUnreadableError, caller: Caller, kind: RunKind) -> bool:
        if error.scope is not None:
            return error.scope in _scopes_of(caller) and error.kind == kind
        if kind != "research":
            return False  # Nothing else tells whose it was.
        try:
            return await self._store.is_listed(scope_of(caller), error.run_id)
        except RunStoreError as failure:
            raise self._unreachable(failure) from failure

    async def _forget(self, live: LiveRun) -> None:
        live.kept = False
        live.end()
        await live.closed.wait()  # Nothing is written after it is forgotten.
        meta = live.meta
        if live.is_lost and (state := await self._hand_over.taken_back(meta)) is not None:
            meta = state.meta
            if meta.replica != self._replica:  # Its new owner would write it again.
                await self._stored(state).forget()
        await self._store.delete(meta)

    async def _forget_for_other(self, live: LiveRun) -> None:
        """Forget a run that another replica asked us to delete.

        It deletes the run too, but our last write may come after its delete, so we delete again.
        """
        try:
            await self._forget(live)
        except RunsUnreachableError:
            pass  # Whoever asked for it tries again.
        except RunStoreError as error:
            self._store_failed("heartbeat", error)

    def _stored(self, state: RunState) -> StoredRun:
        if state.meta.replica == self._replica and not self._takeovers.is_unfinished(state.meta.id):
            # It has ended here, and can't be stored just now.
            state = replace(state, meta=replace(state.meta, replica=""))
        return StoredRun(state, self._store, self.note, self._takeovers.take)

    async def _ask_store(self, run_id: str) -> RunState | None:
        try:
            state = await self._store.state(run_id)
        except RunStoreError as error:
            raise self._unreachable(error) from error
        return state

    def _unreachable(self, error: RunStoreError) -> RunsUnreachableError:
        self._unanswered(error)
        return RunsUnreachableError("Stored runs can't be reached just now; try again shortly.")

    def _unanswered(self, error: RunStoreError) -> None:
        self._store_failed("heartbeat", error)  # Whose next beat tells whether it is over.

    def _sort_of(self, model: str) -> str:
        if model not in self._sorts:
            self._sorts[model] = sort_of_runs(self._services.models[model])
        return self._sorts[model]

    def _own_run(self, run_id: str) -> LiveRun | None:
        live = self._live.get(run_id)
        return None if live is None or live.is_lost else live

    def _adopt(self, live: LiveRun, free_seat: Callable[[], None]) -> None:
        self._live[live.meta.id] = live
        self._spawn(self._own(live, free_seat))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _own(self, live: LiveRun, free_seat: Callable[[], None]) -> None:
        """Drive a run to its end while its events are stored."""
        RUN_ID.set(live.meta.id)
        mirror = asyncio.ensure_future(self._mirror.keep(live))
        try:
            try:
                await live.drive_to_end()
            finally:
                free_seat()
            await mirror
        finally:
            mirror.cancel()
            if self._live.get(live.meta.id) is live:
                del self._live[live.meta.id]
            live.closed.set()

    async def _serve_inbox(self) -> None:
        """Send this replica's heartbeats, and do what other replicas ask of it."""
        # Not for ever: a store that loses a cancellation must not keep the gateway from stopping.
        while not self._closing:
            try:
                sorts = () if self._is_leaving else tuple(self._sort_of(model.name) for model in self._services.models)
                messages = await self._store.heartbeat(self._replica, _HEARTBEAT_S, sorts)
                for message in messages:
                    self._handle(message)
                # Otherwise readers would believe these runs are still running for as long as this replica sends
                # heartbeats.
                for _ in range(min(len(self._abandoned), _ABANDONED_PER_BEAT)):
                    await self._store.abandon(self._abandoned[0])
                    self._abandoned.popleft()
                self._store_worked("heartbeat")
            except RunStoreError as error:
                self._store_failed("heartbeat", error)
                await asyncio.sleep(RETRY_S)

    def _store_failed(self, operation: Operation, error: RunStoreError) -> None:
        """Count a call that failed, and note that the store is in trouble, unless it only forgot a run."""
        self._services.metrics.run_store_errors.inc()
        if not isinstance(error, RunForgottenError):
            self._failing.add(operation)
            self._services.readiness.store.note(ok=False, reason="unreachable", detail=str(error))

    def _store_worked(self, operation: Operation) -> None:
        """Note that a call worked: the trouble is over once all that had failed do."""
        self._failing.discard(operation)
        if not self._failing:
            self._services.readiness.store.note(ok=True)

    def _handle(self, message: Message) -> None:
        live = self._live.get(message.run_id)
        match message.command:
            case "take":
                self._takeovers.look_now()
            case "cancel" if live is not None:
                live.end()
            case "forget" if live is not None:
                self._spawn(self._forget_for_other(live))
            case "read" if live is not None:
                live.read_elsewhere()
