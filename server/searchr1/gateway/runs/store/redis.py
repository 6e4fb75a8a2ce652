"""The run store in Redis, where any replica finds, follows and cancels any run.

``sr1:run:{ID}:log`` is a stream whose entries each hold some events; an entry's id is the ``seq`` of its last event
plus one, so that a reader's position is its last ``seq``. An append that is repeated with more events leaves some of
them in two entries: readers skip what they have.
``:state`` and ``:record`` hold the rest. The braces put all keys of a run into one slot of a Cluster.
``sr1:runs:SCOPE`` lists a caller's runs by time. ``sr1:replica:ID`` is a replica's lease; in ``:inbox`` it finds
the messages of other replicas about its runs.
"""

import asyncio
import json
import time
import zlib
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar, cast

from redis.exceptions import RedisClusterException, RedisError

from searchr1.gateway.runs.store.base import (
    Command,
    LoggedEvent,
    Message,
    RunForgottenError,
    RunMeta,
    RunState,
    RunStoreError,
)
from searchr1.redis_client import RedisClient, answered

T = TypeVar("T")

LEASE_S = 15.0
"""Seconds without a heartbeat after which a replica is gone."""
_MAX_LISTED = 1000
"""Runs that one caller's listing holds."""
_MAX_ENTRIES = 20_000
"""Entries of one run's log; far above what a run's token budget allows."""
_MAX_BLOCKED = 32
"""Reads that may wait on a connection of their own: half of a pool. Further ones look again every so often."""
_POLL_S = 0.25
_RUN, _RUNS, _REPLICA = "sr1:run:", "sr1:runs:", "sr1:replica:"
_EVENTS = b"e"

_APPEND = """
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local held = tail[1] and tonumber(string.match(tail[1][1], '^%d+')) or 0
if held < tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if held < tonumber(ARGV[2]) then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[2] .. '-0', 'e', ARGV[3])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""
"""KEYS: the log, the state. ARGV: the first event's seq, the last one's plus one, the events, ms, most entries.

0 means that Redis lacks events before these, or the run: it was restarted, it failed over, or it evicts keys.
XADD is the first to write: a full Redis refuses only a script's first write.
"""


class RedisRunStore:
    """``RunStore`` over Redis. ``client`` and ``blocking`` come from ``open_redis`` and are closed with the store.

    ``blocking`` is a client of its own, because readers that wait hold a connection each.
    """

    def __init__(self, client: RedisClient, blocking: RedisClient, *, ttl_s: float) -> None:
        self._client: Any = client
        self._blocking: Any = blocking
        self._ttl_ms = max(round(ttl_s * 1000), 1)
        self._num_blocked = 0

    async def create(self, meta: RunMeta) -> None:
        """See ``RunStore.create``."""
        await self._put_state(RunState(meta))
        if meta.kind == "research":
            listing = _RUNS + meta.scope
            await _answer(self._client.zadd(listing, {meta.id: time.time()}))
            await _answer(self._client.zremrangebyrank(listing, 0, -_MAX_LISTED - 1))
            await _answer(self._client.pexpire(listing, self._ttl_ms))

    async def append(self, run_id: str, events: Sequence[LoggedEvent]) -> None:
        """See ``RunStore.append``."""
        keys = _key(run_id, "log"), _key(run_id, "state")
        data = b"\n".join(event.data for event in events)
        values = events[0].seq, events[-1].seq + 1, data, self._ttl_ms, _MAX_ENTRIES
        if not await _answer(self._client.eval(_APPEND, len(keys), *keys, *values)):
            raise RunForgottenError(f"the run, or its events before {events[0].seq}, are not there")

    async def finish(self, state: RunState, record: bytes) -> None:
        """See ``RunStore.finish``."""
        await _answer(self._client.set(_key(state.meta.id, "record"), zlib.compress(record, 1), px=self._ttl_ms))
        if not await _answer(self._client.pexpire(_key(state.meta.id, "log"), self._ttl_ms)):
            raise RunForgottenError("the run's events are not there")
        await self._put_state(state)

    async def state(self, run_id: str) -> RunState | None:
        """See ``RunStore.state``."""
        data = await _answer(self._client.get(_key(run_id, "state")))
        return None if data is None else _state_of(data)

    async def record(self, run_id: str) -> bytes | None:
        """See ``RunStore.record``."""
        data = await _answer(self._client.get(_key(run_id, "record")))
        return None if data is None else zlib.decompress(data)

    async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
        """See ``RunStore.read``."""
        streams: dict[Any, Any] = {_key(run_id, "log"): f"{after + 1}-0"}
        if wait_s <= 0:
            return _events_after(after, await _answer(self._client.xread(streams)))
        if self._num_blocked < _MAX_BLOCKED:
            self._num_blocked += 1
            try:
                block_ms = max(round(wait_s * 1000), 1)
                return _events_after(after, await _answer(self._blocking.xread(streams, block=block_ms)))
            finally:
                self._num_blocked -= 1
        events = await self.read(run_id, after, 0)
        if not events:
            await asyncio.sleep(min(wait_s, _POLL_S))
            events = await self.read(run_id, after, 0)
        return events

    async def list_runs(self, scope: str, after: str | None, limit: int) -> list[RunState]:
        """See ``RunStore.list_runs``."""
        listing, first = _RUNS + scope, 0
        if after is not None:
            rank = await _answer(self._client.zrevrank(listing, after))
            if rank is None:
                return []
            first = rank + 1
        ids = await _answer(self._client.zrevrange(listing, first, first + limit - 1))
        states = [await self.state(run_id.decode()) for run_id in ids]
        return [state for state in states if state is not None]

    async def delete(self, meta: RunMeta) -> None:
        """See ``RunStore.delete``."""
        await _answer(self._client.delete(*(_key(meta.id, part) for part in ("state", "record", "log"))))
        await _answer(self._client.zrem(_RUNS + meta.scope, meta.id))

    async def abandon(self, run_id: str) -> None:
        """See ``RunStore.abandon``."""
        state = await self.state(run_id)
        if state is not None and state.status == "running":
            await self._put_state(replace(state, meta=replace(state.meta, replica="")))

    async def heartbeat(self, replica: str, wait_s: float) -> list[Message]:
        """See ``RunStore.heartbeat``."""
        lease, lease_ms = _REPLICA + replica, round(LEASE_S * 1000)
        # A full Redis still lets a lease be extended, but no key be set.
        if not await _answer(self._client.pexpire(lease, lease_ms)):
            await _answer(self._client.set(lease, b"1", px=lease_ms))
        answer = await _answer(self._blocking.blpop([f"{_REPLICA}{replica}:inbox"], timeout=wait_s))
        if answer is None:
            return []
        command, _, run_id = answer[1].decode("utf-8", "replace").partition(" ")
        return [Message(cast(Command, command), run_id)]

    async def is_alive(self, replica: str) -> bool:
        """See ``RunStore.is_alive``."""
        return bool(replica) and bool(await _answer(self._client.exists(_REPLICA + replica)))

    async def send_to_owner(self, meta: RunMeta, command: Command) -> None:
        """See ``RunStore.send_to_owner``."""
        inbox = f"{_REPLICA}{meta.replica}:inbox"
        await _answer(self._client.rpush(inbox, f"{command} {meta.id}"))
        await _answer(self._client.pexpire(inbox, round(LEASE_S * 1000)))

    async def aclose(self) -> None:
        """See ``RunStore.aclose``."""
        await self._client.aclose()
        await self._blocking.aclose()

    async def _put_state(self, state: RunState) -> None:
        data = json.dumps(asdict(state), separators=(",", ":")).encode("utf-8")
        await _answer(self._client.set(_key(state.meta.id, "state"), data, px=self._ttl_ms))


def _key(run_id: str, part: str) -> str:
    return f"{_RUN}{{{run_id}}}:{part}"


def _state_of(data: bytes) -> RunState:
    fields = json.loads(data)
    return RunState(RunMeta(**fields.pop("meta")), **fields)


def _events_after(after: int, answer: Any) -> list[LoggedEvent]:
    """Return the events of XREAD's answer, each one once."""
    logs = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
    fresh: list[LoggedEvent] = []
    for event in (event for entries in logs for entry in entries for event in _events_of(entry)):
        if event.seq > after:
            fresh.append(event)
            after = event.seq
    return fresh


def _events_of(entry: tuple[bytes, dict[bytes, bytes]]) -> list[LoggedEvent]:
    entry_id, fields = entry
    last = int(entry_id.partition(b"-")[0]) - 1
    parts = fields[_EVENTS].split(b"\n")
    return [LoggedEvent(last - len(parts) + 1 + i, data) for i, data in enumerate(parts)]


async def _answer(command: Awaitable[T]) -> T:
    try:
        return await answered(command)
    except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
        raise RunStoreError(f"the run store does not answer ({type(error).__name__})") from error
