"""The run store in Redis, where any replica finds, follows and cancels any run.

``sr1:run:{ID}:log`` is a stream whose entries each hold some events; an entry's id is the ``seq`` of its last event
plus one, so that a reader's position is its last ``seq``. An append that is repeated with more events leaves some of
them in two entries: readers skip what they have.
``:state`` and ``:record`` hold the rest. The braces put all keys of a run into one slot of a Cluster.
``sr1:claim:NAME`` is the claim of an idempotency key.
``sr1:runs:SCOPE`` lists a caller's runs by time. ``sr1:replica:ID`` is a replica's lease; in ``:inbox`` it finds
the messages of other replicas about its runs.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from searchr1.gateway.runs.store.base import (
    Command,
    LoggedEvent,
    Message,
    Note,
    RunForgottenError,
    RunMeta,
    RunState,
    RunStoreError,
    RunUnreadableError,
    ignore,
)
from searchr1.gateway.runs.store.codec import (
    MAX_RECORD_BYTES,
    MAX_STATE_BYTES,
    VERSION,
    decode_entry,
    decode_record,
    decode_state,
    encode_record,
    encode_state,
)
from searchr1.redis_client import RedisClient, answered, reason_of

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
_MAX_CLAIM_BYTES = 4096
_CLAIM_TRIES = 3
"""Claims may be given up or expire between a try to make one and the look at what stands."""
_RUN, _RUNS, _REPLICA, _CLAIM = "sr1:run:", "sr1:runs:", "sr1:replica:", "sr1:claim:"

_APPEND = """
local tail = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
local held = tail[1] and tonumber(string.match(tail[1][1], '^%d+')) or 0
if held < tonumber(ARGV[1]) or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if held < tonumber(ARGV[2]) then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[2] .. '-0', 'e', ARGV[3], 'v', ARGV[6])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return 1
"""
"""KEYS: the log, the state. ARGV: the first event's seq, the last one's plus one, the events, ms, most entries, and
the version.

0 means that Redis lacks events before these, or the run: it was restarted, it failed over, or it evicts keys.
XADD is the first to write: a full Redis refuses only a script's first write.
"""

_FINISH = """
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
return 1
"""
"""KEYS: the record, the log, the state. ARGV: the record, the state, ms.

All or nothing: a Redis that is restarted empty between two commands would be left with a state alone. 0 means that the
log is gone.
"""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
"""KEYS: the claim. ARGV: the value that it must have."""


class RedisRunStore:
    """A ``RunStore`` over Redis. ``client`` and ``blocking`` come from ``open_redis`` and are closed with the store.

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
        values = events[0].seq, events[-1].seq + 1, data, self._ttl_ms, _MAX_ENTRIES, VERSION
        if not await _answer(self._client.eval(_APPEND, len(keys), *keys, *values)):
            raise RunForgottenError(f"the run, or its events before {events[0].seq}, are not there")

    async def finish(self, state: RunState, record: bytes) -> None:
        """See ``RunStore.finish``."""
        keys = [_key(state.meta.id, part) for part in ("record", "log", "state")]
        values = encode_record(record), encode_state(state), self._ttl_ms
        if not await _answer(self._client.eval(_FINISH, len(keys), *keys, *values)):
            raise RunForgottenError("the run's events are not there")

    async def state(self, run_id: str) -> RunState | None:
        """See ``RunStore.state``."""
        data = await self._bytes_of(run_id, "state", MAX_STATE_BYTES)
        return None if data is None else decode_state(run_id, data)

    async def record(self, run_id: str) -> bytes | None:
        """See ``RunStore.record``."""
        data = await self._bytes_of(run_id, "record", MAX_RECORD_BYTES)
        return None if data is None else decode_record(run_id, data)

    async def read(self, run_id: str, after: int, wait_s: float) -> list[LoggedEvent]:
        """See ``RunStore.read``."""
        streams: dict[Any, Any] = {_key(run_id, "log"): f"{after + 1}-0"}
        if wait_s <= 0:
            return _events_after(run_id, after, await _answer_of(run_id, self._client.xread(streams)))
        if self._num_blocked < _MAX_BLOCKED:
            self._num_blocked += 1
            try:
                block_ms = max(round(wait_s * 1000), 1)
                answer = await _answer_of(run_id, self._blocking.xread(streams, block=block_ms))
                return _events_after(run_id, after, answer)
            finally:
                self._num_blocked -= 1
        events = await self.read(run_id, after, 0)
        if not events:
            await asyncio.sleep(min(wait_s, _POLL_S))
            events = await self.read(run_id, after, 0)
        return events

    async def list_runs(self, scope: str, after: str | None, limit: int, note: Note = ignore) -> list[RunState]:
        """See ``RunStore.list_runs``."""
        listing, first = _RUNS + scope, 0
        if after is not None:
            rank = await _answer(self._client.zrevrank(listing, after))
            if rank is None:
                return []
            first = rank + 1
        found: list[RunState] = []
        while ids := await _answer(self._client.zrevrange(listing, first, first + limit - 1)):
            first += len(ids)
            for run_id in ids:
                try:
                    state = await self.state(run_id.decode("utf-8", "replace"))
                except RunUnreadableError as error:
                    note(error)
                    continue
                if state is not None:
                    found.append(state)
                if len(found) == limit:
                    return found
        return found

    async def is_listed(self, scope: str, run_id: str) -> bool:
        """See ``RunStore.is_listed``."""
        return await _answer(self._client.zscore(_RUNS + scope, run_id)) is not None

    async def delete(self, meta: RunMeta) -> None:
        """See ``RunStore.delete``."""
        await _answer(self._client.delete(*(_key(meta.id, part) for part in ("state", "record", "log"))))
        await _answer(self._client.zrem(_RUNS + meta.scope, meta.id))

    async def abandon(self, run_id: str) -> None:
        """See ``RunStore.abandon``."""
        try:
            state = await self.state(run_id)
        except RunUnreadableError:
            return
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

    async def claim(self, name: str, value: bytes) -> bytes:
        """See ``RunStore.claim``."""
        for _ in range(_CLAIM_TRIES):
            if await _answer(self._client.set(_CLAIM + name, value, px=self._ttl_ms, nx=True)):
                return value
            if (standing := await self.claimed(name)) is not None:
                return standing
        raise RunStoreError("the run store neither takes nor gives a claim")

    async def claimed(self, name: str) -> bytes | None:
        """See ``RunStore.claimed``. One that is too long to be a claim is cut."""
        data = await _answer(self._client.getrange(_CLAIM + name, 0, _MAX_CLAIM_BYTES))
        return cast(bytes, data) or None

    async def release(self, name: str, value: bytes) -> None:
        """See ``RunStore.release``."""
        await _answer(self._client.eval(_RELEASE, 1, _CLAIM + name, value))

    async def aclose(self) -> None:
        """See ``RunStore.aclose``."""
        await self._client.aclose()
        await self._blocking.aclose()

    async def _put_state(self, state: RunState) -> None:
        await _answer(self._client.set(_key(state.meta.id, "state"), encode_state(state), px=self._ttl_ms))

    async def _bytes_of(self, run_id: str, part: str, max_bytes: int) -> bytes | None:
        """Return a part of a run, or its beginning where it is longer than ``max_bytes``; None where it is not there.

        A part that is cut so is not read as a whole one: it is too large by one byte.
        """
        data = await _answer_of(run_id, self._client.getrange(_key(run_id, part), 0, max_bytes))
        return cast(bytes, data) or None


def _key(run_id: str, part: str) -> str:
    return f"{_RUN}{{{run_id}}}:{part}"


def _events_after(run_id: str, after: int, answer: Any) -> list[LoggedEvent]:
    """Return the events of XREAD's answer, each one once."""
    logs = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
    fresh: list[LoggedEvent] = []
    for entry_id, fields in (entry for entries in logs for entry in entries):
        for event in decode_entry(run_id, int(entry_id.partition(b"-")[0]) - 1, fields):
            if event.seq > after:
                fresh.append(event)
                after = event.seq
    return fresh


async def _answer_of(run_id: str, command: Awaitable[T]) -> T:
    """Return the answer about one run, whose keys may hold something else than a run's."""
    try:
        return await _answer(command)
    except RunStoreError as error:
        if isinstance(error.__cause__, ResponseError) and str(error.__cause__).startswith("WRONGTYPE"):
            raise RunUnreadableError(run_id, "a key of it holds something else") from error
        raise


async def _answer(command: Awaitable[T]) -> T:
    try:
        return await answered(command)
    except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
        raise RunStoreError(f"the run store does not answer ({reason_of(error)})") from error
