"""The run store in Redis, where any replica finds, follows and cancels any run.

``sr1:run:{ID}:log`` is a stream whose entries each hold some events; an entry's id is the ``seq`` of its last event
plus one, so that a reader's position is its last ``seq``. An append that is repeated with more events leaves some of
them in two entries: readers skip what they have.
With the events go the inputs of the run that led to them, so that another replica can take it over.
``:state`` and ``:record`` hold the rest, ``:owner`` who may write, ``:plan`` how the run was to be driven. The braces
put all keys of a run into one slot of a Cluster.
``sr1:claim:NAME`` is the claim of an idempotency key.
``sr1:runs:SCOPE`` lists a caller's runs by time. ``sr1:replica:ID`` is a replica's lease; in ``:inbox`` it finds
the messages of other replicas about its runs, and ``:runs`` are its open runs that others may take. ``sr1:replicas``
names all replicas that may have such runs. A lease names the sorts of runs that its replica takes over.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar, cast

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from searchr1.gateway.runs.store.base import (
    HANDED_OVER,
    Command,
    History,
    LoggedEvent,
    Message,
    Note,
    Orphan,
    RunForgottenError,
    RunMeta,
    RunState,
    RunStoreError,
    RunTakenError,
    RunTooLargeError,
    RunUnreadableError,
    ignore,
)
from searchr1.gateway.runs.store.codec import (
    INPUTS,
    MAX_LOG_BYTES,
    MAX_RECORD_BYTES,
    MAX_STATE_BYTES,
    VERSION,
    decode_entry,
    decode_record,
    decode_state,
    encode_lease,
    encode_record,
    encode_state,
    owner_token,
    takes_runs_of,
)
from searchr1.gateway.runs.store.grouped import GroupedCommands
from searchr1.gateway.runs.store.redis_scripts import ABANDON, APPEND, CREATE, DONE, FINISH, RELEASE, TAKE, TAKEN
from searchr1.redis_client import RedisClient, answered, reason_of

T = TypeVar("T")
_Entry = tuple[bytes, dict[bytes, bytes]]

LEASE_S = 6.0
"""Seconds without a heartbeat after which a replica is gone, and its runs may be taken. One that was only slow loses
them, and nothing else."""
_MAX_LISTED = 1000
"""Runs that one caller's listing holds."""
_MAX_ENTRIES = 200_000
"""Entries of one run's log; far above what a run's token budget allows."""
_PORTION = 256
"""Entries of a log that are read at once: what is too large is seen before all of it is here."""
_MAX_BLOCKED = 32
"""Reads that may wait on a connection of their own: half of a pool. Further ones look again every so often."""
_POLL_S = 0.25
_MAX_CLAIM_BYTES = 4096
_CLAIM_TRIES = 3
"""Claims may be given up or expire between a try to make one and the look at what stands."""
_MAX_PLAN_BYTES = 32 * 2**20
_RUN, _RUNS, _REPLICA, _CLAIM = "sr1:run:", "sr1:runs:", "sr1:replica:", "sr1:claim:"
_REPLICAS = "sr1:replicas"


class RedisRunStore:
    """A ``RunStore`` over Redis. ``client`` and ``blocking`` come from ``open_redis`` and are closed with the store.

    ``blocking`` is a client of its own, because readers that wait hold a connection each.
    """

    def __init__(self, client: RedisClient, blocking: RedisClient, *, ttl_s: float) -> None:
        self._client: Any = client
        self._blocking: Any = blocking
        self._ttl_ms = max(round(ttl_s * 1000), 1)
        self._num_blocked = 0
        self._grouped = GroupedCommands(client)

    @property
    def is_shared(self) -> bool:
        """See ``RunStore.is_shared``."""
        return True

    async def create(self, meta: RunMeta, plan: bytes | None = None) -> None:
        """See ``RunStore.create``."""
        keys = [_key(meta.id, part) for part in ("owner", "state", "plan")]
        values = owner_token(meta), encode_state(RunState(meta)), plan or b"", self._ttl_ms
        commands: list[tuple[Any, ...]] = [("EVAL", CREATE, len(keys), *keys, *values)]
        if plan is not None:
            commands += _list_open(meta, self._ttl_ms)
        if meta.kind == "research":
            listing = _RUNS + meta.scope
            commands.append(("ZADD", listing, time.time(), meta.id))
            commands.append(("ZREMRANGEBYRANK", listing, 0, -_MAX_LISTED - 1))
            commands.append(("PEXPIRE", listing, self._ttl_ms))
        created, *_ = await self._send_all(commands)
        _check(meta, created)

    async def append(self, meta: RunMeta, events: Sequence[LoggedEvent], inputs: bytes = b"") -> None:
        """See ``RunStore.append``."""
        keys = [_key(meta.id, part) for part in ("log", "state", "owner", "plan")]
        data = b"\n".join([event.data for event in events])
        first, end = events[0].seq, events[-1].seq + 1
        values = first, end, data, self._ttl_ms, _MAX_ENTRIES, VERSION, owner_token(meta)
        further = (INPUTS, inputs) if inputs else ()
        answer = await _answer(self._grouped.send("EVAL", APPEND, len(keys), *keys, *values, *further))
        _check(meta, answer)

    async def finish(self, state: RunState, record: bytes) -> None:
        """See ``RunStore.finish``."""
        meta = state.meta
        keys = [_key(meta.id, part) for part in ("record", "log", "state", "owner", "plan")]
        values = encode_record(record), encode_state(state), self._ttl_ms, owner_token(meta)
        answer = await _answer(self._client.eval(FINISH, len(keys), *keys, *values))
        _check(meta, answer)
        if answer > DONE:
            await _answer(self._client.srem(_open_runs(meta.replica), meta.id))

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
        if wait_s <= 0:
            return _events_of(run_id, after, await self._log(run_id, after))
        if self._num_blocked < _MAX_BLOCKED:
            self._num_blocked += 1
            try:
                streams: dict[Any, Any] = {_key(run_id, "log"): f"{after + 1}-0"}
                block_ms = max(round(wait_s * 1000), 1)
                answer = await _answer_of(run_id, self._blocking.xread(streams, count=_PORTION, block=block_ms))
                return _events_of(run_id, after, _entries(answer))
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
        await _answer(
            self._client.delete(*(_key(meta.id, part) for part in ("state", "record", "log", "owner", "plan")))
        )
        if meta.replica:
            await _answer(self._client.srem(_open_runs(meta.replica), meta.id))
        await _answer(self._client.zrem(_RUNS + meta.scope, meta.id))

    async def abandon(self, meta: RunMeta) -> None:
        """See ``RunStore.abandon``."""
        try:
            state = await self.state(meta.id)
        except RunUnreadableError:
            return
        if state is not None and state.status == "running":
            keys = [_key(meta.id, part) for part in ("owner", "state", "plan")]
            left = encode_state(replace(state, meta=replace(state.meta, replica="")))
            await _answer(self._client.eval(ABANDON, len(keys), *keys, owner_token(meta), left, self._ttl_ms))

    async def plan(self, run_id: str) -> bytes | None:
        """See ``RunStore.plan``."""
        return await self._bytes_of(run_id, "plan", _MAX_PLAN_BYTES)

    async def take(self, meta: RunMeta, replica: str) -> RunMeta | None:
        """See ``RunStore.take``."""
        taken = replace(meta, replica=replica, epoch=meta.epoch + (meta.replica != HANDED_OVER))
        return taken if await self._passed_on(meta, taken) else None

    async def hand_over(self, meta: RunMeta) -> bool:
        """See ``RunStore.hand_over``."""
        await _answer(self._client.sadd(_REPLICAS, HANDED_OVER))
        return await self._passed_on(meta, replace(meta, replica=HANDED_OVER))

    async def takers(self, sort: str) -> list[str]:
        """See ``RunStore.takers``."""
        found: list[str] = []
        for name in await _answer(self._client.smembers(_REPLICAS)):
            replica = name.decode("utf-8", "replace")
            lease = await _answer(self._client.get(_REPLICA + replica))
            if lease is not None and takes_runs_of(lease, sort):
                found.append(replica)
        return found

    async def _passed_on(self, meta: RunMeta, new: RunMeta) -> bool:
        """Put ``new`` in the place of ``meta``, the run's identity; False where it has another one by now."""
        await self._send_all(_list_open(new, self._ttl_ms))
        keys = [_key(meta.id, part) for part in ("owner", "state", "plan")]
        values = owner_token(meta), owner_token(new), encode_state(RunState(new)), self._ttl_ms
        if not await _answer(self._client.eval(TAKE, len(keys), *keys, *values)):
            if new.replica != HANDED_OVER:  # Which may have it from a later owner.
                await self.disown(Orphan(new.replica, meta.id))
            return False
        if meta.replica != new.replica:
            with suppress(RunStoreError):  # Whoever finds it there sees that it has another owner.
                await self.disown(Orphan(meta.replica, meta.id))
        return True

    async def history(self, run_id: str) -> History:
        """See ``RunStore.history``."""
        entries = await self._log(run_id, -1)
        inputs = (line for _, fields in entries for line in fields.get(INPUTS, b"").split(b"\n") if line)
        return History(tuple(_events_of(run_id, -1, entries)), tuple(inputs))

    async def orphans(self, limit: int) -> list[Orphan]:
        """See ``RunStore.orphans``."""
        found: list[Orphan] = []
        for name in await _answer(self._client.smembers(_REPLICAS)):
            replica = name.decode("utf-8", "replace")
            if await self.is_alive(replica):
                continue
            runs = await _answer(self._client.srandmember(_open_runs(replica), limit))
            found += [Orphan(replica, run_id.decode("utf-8", "replace")) for run_id in runs]
            if not runs and replica != HANDED_OVER:  # Which may be given one just now.
                await _answer(self._client.srem(_REPLICAS, name))
        return found

    async def disown(self, orphan: Orphan) -> None:
        """See ``RunStore.disown``."""
        await _answer(self._client.srem(_open_runs(orphan.replica), orphan.run_id))

    async def heartbeat(self, replica: str, wait_s: float, sorts: Sequence[str] = ()) -> list[Message]:
        """See ``RunStore.heartbeat``."""
        lease, lease_ms = _REPLICA + replica, round(LEASE_S * 1000)
        # A full Redis still lets a lease be extended, but no key be set.
        if not await _answer(self._client.pexpire(lease, lease_ms)):
            await _answer(self._client.set(lease, encode_lease(sorts), px=lease_ms))
            await _answer(self._client.sadd(_REPLICAS, replica))
        if not await _answer(self._client.pexpire(_REPLICAS, self._ttl_ms)):
            await _answer(self._client.sadd(_REPLICAS, replica))
            await _answer(self._client.pexpire(_REPLICAS, self._ttl_ms))
        answer = await _answer(self._blocking.blpop([f"{_REPLICA}{replica}:inbox"], timeout=wait_s))
        if answer is None:
            return []
        command, _, run_id = answer[1].decode("utf-8", "replace").partition(" ")
        return [Message(cast(Command, command), run_id)]

    async def stop_taking(self, replica: str) -> None:
        """See ``RunStore.stop_taking``."""
        await _answer(self._client.set(_REPLICA + replica, encode_lease(()), px=round(LEASE_S * 1000)))

    async def depart(self, replica: str) -> None:
        """See ``RunStore.depart``."""
        await _answer(self._client.delete(_REPLICA + replica))

    async def is_alive(self, replica: str) -> bool:
        """See ``RunStore.is_alive``."""
        return bool(replica) and bool(await _answer(self._client.exists(_REPLICA + replica)))

    async def send_to_owner(self, meta: RunMeta, command: Command) -> None:
        """See ``RunStore.send_to_owner``."""
        if meta.replica == HANDED_OVER:  # Nobody reads what would pile up there.
            return
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
        await _answer(self._client.eval(RELEASE, 1, _CLAIM + name, value))

    async def aclose(self) -> None:
        """See ``RunStore.aclose``."""
        await self._grouped.aclose()
        await self._client.aclose()
        await self._blocking.aclose()

    async def _send_all(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Return the answers to commands that go in one round trip, at once. The first failure is raised."""
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await _answer(pipeline.execute())
        return answers

    async def _log(self, run_id: str, after: int) -> list[_Entry]:
        """Return the entries of a run's log that end above ``after``. Raises ``RunTooLargeError``."""
        entries: list[_Entry] = []
        num_bytes, position = 0, f"{after + 1}-0".encode()
        while True:
            asked = self._client.xread({_key(run_id, "log"): position}, count=_PORTION)
            portion = _entries(await _answer_of(run_id, asked))
            entries += portion
            num_bytes += sum(len(value) for _, fields in portion for value in fields.values())
            if num_bytes > MAX_LOG_BYTES:
                raise RunTooLargeError(run_id)
            if len(portion) < _PORTION:
                return entries
            position = portion[-1][0]

    async def _bytes_of(self, run_id: str, part: str, max_bytes: int) -> bytes | None:
        """Return a part of a run, or its beginning where it is longer than ``max_bytes``; None where it is not there.

        A part that is cut so is not read as a whole one: it is too large by one byte.
        """
        data = await _answer_of(run_id, self._client.getrange(_key(run_id, part), 0, max_bytes))
        return cast(bytes, data) or None


def _key(run_id: str, part: str) -> str:
    return f"{_RUN}{{{run_id}}}:{part}"


def _open_runs(replica: str) -> str:
    return f"{_REPLICA}{replica}:runs"


def _list_open(meta: RunMeta, ttl_ms: int) -> list[tuple[Any, ...]]:
    """Return the commands that let others find the run if its owner dies."""
    listing = _open_runs(meta.replica)
    return [("SADD", listing, meta.id), ("PEXPIRE", listing, ttl_ms)]


def _check(meta: RunMeta, answer: int) -> None:
    """Raise the error that a script's answer means."""
    if answer == TAKEN:
        raise RunTakenError(f"the run {meta.id} has another owner")
    if answer < DONE:
        raise RunForgottenError(f"the run {meta.id}, or a part of it, is not there")


def _entries(answer: Any) -> list[_Entry]:
    """Return the entries of XREAD's answer about one log."""
    logs = answer.values() if isinstance(answer, dict) else [entries for _, entries in answer or ()]
    return [entry for entries in logs for entry in entries]


def _events_of(run_id: str, after: int, entries: Sequence[_Entry]) -> list[LoggedEvent]:
    """Return the events with a ``seq`` above ``after``, each one once."""
    fresh: list[LoggedEvent] = []
    for entry_id, fields in entries:
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
