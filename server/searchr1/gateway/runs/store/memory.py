"""The run store in memory, for one replica. The oldest runs are dropped when all take more than ``max_bytes``."""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace

from searchr1.gateway.runs.store.base import (
    Command,
    History,
    LoggedEvent,
    Message,
    Note,
    Orphan,
    RunForgottenError,
    RunMeta,
    RunState,
    ignore,
)

_OVERHEAD_BYTES = 100
"""Memory of an event or a run besides its JSON."""


@dataclass(slots=True)
class _Kept:
    state: RunState
    expires_at: float
    events: list[bytes] = field(default_factory=list)
    """Their JSON by ``seq``: the same objects that the run itself has while it goes on."""
    record: bytes | None = None
    num_bytes: int = 0

    @property
    def goes_on(self) -> bool:
        """Whether it has no end yet, and this process still drives it."""
        return self.record is None and bool(self.state.meta.replica)

    def logged(self, first: int) -> list[LoggedEvent]:
        """Return its events from the one with the ``seq`` ``first`` on."""
        return [LoggedEvent(first + i, data) for i, data in enumerate(self.events[first:])]


class MemoryRunStore:
    """A ``RunStore`` over a dictionary. ``clock`` gives seconds."""

    def __init__(self, *, ttl_s: float, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ttl_s, self._max_bytes, self._clock = ttl_s, max_bytes, clock
        self._runs: dict[str, _Kept] = {}
        self._num_bytes = 0

    @property
    def is_shared(self) -> bool:
        """See ``RunStore.is_shared``."""
        return False

    async def create(self, meta: RunMeta, plan: bytes | None = None) -> None:
        """See ``RunStore.create``."""
        self._drop(meta.id)
        run = self._runs[meta.id] = _Kept(RunState(meta), self._clock() + self._ttl_s)
        self._grow(run, _OVERHEAD_BYTES + len(json.dumps(asdict(meta))))

    async def append(self, meta: RunMeta, events: Sequence[LoggedEvent], inputs: bytes = b"") -> None:
        """See ``RunStore.append``."""
        run = self._found(meta.id)
        if events and events[0].seq > len(run.events):
            raise RunForgottenError(f"the events before {events[0].seq} are not there")
        run.expires_at = self._clock() + self._ttl_s
        fresh = [event.data for event in events if event.seq >= len(run.events)]
        run.events.extend(fresh)
        self._grow(run, sum(len(data) + _OVERHEAD_BYTES for data in fresh))

    async def finish(self, state: RunState, record: bytes) -> None:
        """See ``RunStore.finish``."""
        run = self._found(state.meta.id)
        run.state, run.record, run.expires_at = state, record, self._clock() + self._ttl_s
        self._grow(run, len(record))

    async def state(self, run_id: str) -> RunState | None:
        """See ``RunStore.state``."""
        run = self._find(run_id)
        return None if run is None else run.state

    async def record(self, run_id: str) -> bytes | None:
        """See ``RunStore.record``."""
        run = self._find(run_id)
        return None if run is None else run.record

    async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
        """See ``RunStore.read``. A run that goes on is read from its ``LiveRun``: nothing new comes here."""
        run = self._find(run_id)
        events = [] if run is None else run.logged(after + 1)
        if not events and wait_s > 0:
            await asyncio.sleep(wait_s)
        return events

    async def list_runs(self, scope: str, after: str | None, limit: int, note: Note = ignore) -> list[RunState]:
        """See ``RunStore.list_runs``."""
        states = [run.state for run_id in list(reversed(self._runs)) if (run := self._find(run_id)) is not None]
        own = [state for state in states if state.meta.scope == scope and state.meta.kind == "research"]
        first = next((i + 1 for i, state in enumerate(own) if state.meta.id == after), 0 if after is None else len(own))
        return own[first : first + limit]

    async def is_listed(self, scope: str, run_id: str) -> bool:
        """See ``RunStore.is_listed``."""
        run = self._find(run_id)
        return run is not None and run.state.meta.scope == scope

    async def delete(self, meta: RunMeta) -> None:
        """See ``RunStore.delete``."""
        self._drop(meta.id)

    async def abandon(self, meta: RunMeta) -> None:
        """See ``RunStore.abandon``."""
        if (run := self._find(meta.id)) is not None and run.record is None:
            run.state = replace(run.state, meta=replace(run.state.meta, replica=""))

    async def plan(self, run_id: str) -> bytes | None:
        """See ``RunStore.plan``. No other replica could use one."""
        return None

    async def take(self, meta: RunMeta, replica: str) -> RunMeta | None:
        """See ``RunStore.take``. Runs do not outlive their one replica."""
        return None

    async def hand_over(self, meta: RunMeta) -> bool:
        """See ``RunStore.hand_over``. There is no other replica."""
        return False

    async def takers(self, sort: str) -> list[str]:
        """See ``RunStore.takers``. There is no other replica."""
        return []

    async def history(self, run_id: str) -> History:
        """See ``RunStore.history``."""
        run = self._find(run_id)
        return History(() if run is None else tuple(run.logged(0)), ())

    async def orphans(self, limit: int) -> list[Orphan]:
        """See ``RunStore.orphans``. There is no other replica."""
        return []

    async def disown(self, orphan: Orphan) -> None:
        """See ``RunStore.disown``."""

    async def heartbeat(self, replica: str, wait_s: float, sorts: Sequence[str] = ()) -> list[Message]:
        """See ``RunStore.heartbeat``. There is no other replica, so no message ever comes."""
        await asyncio.sleep(wait_s)
        return []

    async def stop_taking(self, replica: str) -> None:
        """See ``RunStore.stop_taking``. Nobody is to know."""

    async def depart(self, replica: str) -> None:
        """See ``RunStore.depart``. Nobody is to know."""

    async def is_alive(self, replica: str) -> bool:
        """See ``RunStore.is_alive``. The one replica asks about itself, or about a run without an owner."""
        return bool(replica)

    async def send_to_owner(self, meta: RunMeta, command: Command) -> None:
        """See ``RunStore.send_to_owner``. Every run that goes on is this process's own, so nothing is sent."""

    async def claim(self, name: str, value: bytes) -> bytes:
        """See ``RunStore.claim``. There is no other replica, and this one's ``IdempotencyKeys`` know its own claims."""
        return value

    async def claimed(self, name: str) -> bytes | None:
        """See ``RunStore.claimed``. No other replica claims anything."""
        return None

    async def release(self, name: str, value: bytes) -> None:
        """See ``RunStore.release``. Nothing is held here."""

    async def aclose(self) -> None:
        """Do nothing: there are no connections."""

    def _found(self, run_id: str) -> _Kept:
        if (run := self._find(run_id)) is None:
            raise RunForgottenError("the run is not there")
        return run

    def _find(self, run_id: str) -> _Kept | None:
        run = self._runs.get(run_id)
        # One that goes on is this process's own, and is kept however long it takes.
        if run is not None and not run.goes_on and run.expires_at <= self._clock():
            self._drop(run_id)
            return None
        return run

    def _grow(self, run: _Kept, num_bytes: int) -> None:
        run.num_bytes += num_bytes
        self._num_bytes += num_bytes
        self._make_room()

    def _make_room(self) -> None:
        """Drop the oldest runs that have ended, as long as they are too old or all together too large."""
        while (oldest := next((run for run in self._runs.values() if run.record is not None), None)) is not None:
            if self._num_bytes <= self._max_bytes and oldest.expires_at > self._clock():
                return
            self._drop(oldest.state.meta.id)

    def _drop(self, run_id: str) -> None:
        if (run := self._runs.pop(run_id, None)) is not None:
            self._num_bytes -= run.num_bytes
