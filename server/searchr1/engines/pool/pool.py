"""Several vLLM servers as one engine.

A session stays on its replica, where its prefix is cached. A new one goes to the ready replica with most room, or to
where ``place`` has put it. Once its replica is unwell or drained, a session's next completion, and the rest of one that
was under way, go to another: whoever drives the run asks again (``engines/resume.py``).

Each replica is watched by a task of its own. Silence alone makes none unwell: it must fail its probes, or completions.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing, suppress
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from searchr1.breaker import CallResult
from searchr1.engines.base import (
    REPLICA_STATES,
    Chunk,
    EngineHealth,
    ReplicaState,
    ReplicaView,
    SamplingParams,
    TakesWeights,
)
from searchr1.engines.pool.discovery import Discovery
from searchr1.engines.pool.replica import Replica
from searchr1.engines.pool.weights import RollingWeights, Weights, load_at_once
from searchr1.engines.vllm.address import ServerAddress
from searchr1.engines.vllm.http import VllmHttpEngine
from searchr1.errors import (
    EngineClosedError,
    EngineDrainedError,
    EngineError,
    EngineOverloadedError,
    EngineUnavailableError,
)
from searchr1.loop.types import TokenIds

logger = logging.getLogger(__name__)

_MAX_SESSIONS: Final = 65_536
_MOVE_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class PoolTimes:
    """Times of a pool, in seconds."""

    look_every_s: float = 1.0
    """Between two looks at a replica's health and load."""
    discover_every_s: float = 5.0
    """Between two looks at where the replicas are."""
    stuck_s: float = 30.0
    """Longest that a completion which has begun may bring no token."""
    drain_s: float = 30.0
    """Time for the completions of a replica that has vanished from its service, before they are moved."""
    first_look_s: float = 3.0
    """Longest time that the opening waits for the replicas' first word."""


class VllmPool(TakesWeights):
    """A pool; use it as a context manager.

    Args:
        discovery: where the servers are.
        connect: returns the client of the server at an address.
        rolling: whether new weights go to one replica after the other, so that no run is lost, or to all at once, so
            that no two of them ever differ.
        times: see ``PoolTimes``.
    """

    def __init__(
        self,
        discovery: Discovery,
        connect: Callable[[str], VllmHttpEngine],
        *,
        rolling: bool = False,
        times: PoolTimes | None = None,
    ) -> None:
        self.num_failovers = 0
        """Times that a session went to another replica than the one before."""
        self._discovery, self._connect, self._rolling = discovery, connect, rolling
        self._times = times or PoolTimes()
        self._weights = RollingWeights(self._moved_away)
        self._replicas: dict[str, Replica] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._discovering: asyncio.Task[None] | None = None
        self._found: frozenset[str] = frozenset()
        self._errands: set[asyncio.Task[None]] = set()
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._on_their_way_out: set[str] = set()
        self._num_gone = 0
        self._is_lost = self._is_closed = False

    async def __aenter__(self) -> Self:
        await self._discover()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._times.first_look_s):
                await asyncio.gather(*(replica.seen.wait() for replica in self._replicas.values()))
        if self._discovery.changes:
            self._discovering = asyncio.create_task(self._keep_discovering(), name="pool-discovery")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        tasks = [*self._watches.values(), *self._errands, *filter(None, [self._discovering])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in self._replicas.values():
            await replica.client.aclose()

    @property
    def replicas(self) -> tuple[ReplicaView, ...]:
        """The replicas as they are now, for a scheduler and for metrics."""
        return tuple(replica.view for replica in self._replicas.values())

    @property
    def num_by_state(self) -> dict[ReplicaState, int]:
        """Number of replicas by state; those that are gone since the start."""
        states = [replica.state for replica in self._replicas.values()]
        return {state: states.count(state) if state != "gone" else self._num_gone for state in REPLICA_STATES}

    def place(self, session: str, replica_name: str) -> None:
        """Put a session on a replica, from its next completion on, for as long as that replica is ready.

        A name that is not among ``replicas`` is ignored: the pool chooses then.
        """
        if replica_name in self._replicas:
            self._remember(session, replica_name)

    def replica_of(self, session: str) -> str | None:
        """Return the name of the replica that a session is on; see ``Replicated``."""
        return self._sessions.get(session)

    def add(self, url: str) -> None:
        """Take one more server into the pool; it gets sessions once it is well. Raises ``ConfigurationError``."""
        name = ServerAddress.parse(url).url
        if name in self._replicas:
            self._on_their_way_out.discard(name)
            self._replicas[name].admit()
            return
        replica = Replica(self._connect(url))
        self._replicas[name] = replica
        self._weights.joined(replica)
        # In a context of its own, as it outlives the request that may have added it.
        self._watches[name] = asyncio.create_task(self._watch(replica), name=f"replica-watch {name}", context=Context())

    async def drain(self, url: str, *, within_s: float = 0.0) -> None:
        """Take a server out of the pool: no new sessions, and its completions end, or are moved after ``within_s``.

        They are moved only if another replica is ready to take them. ``add`` meanwhile takes it in again. Raises
        ``KeyError`` for an unknown server.
        """
        replica = self._replicas[ServerAddress.parse(url).url]
        self._on_their_way_out.add(replica.name)
        replica.drain()
        await self._emptied(replica, within_s)
        if replica.name not in self._on_their_way_out:
            return
        self._on_their_way_out.discard(replica.name)
        watch = self._watches.pop(replica.name)
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        del self._replicas[replica.name]
        self._num_gone += 1
        self._weights.left(replica)
        await replica.remove()

    def begin_drain(self, url: str, *, within_s: float, leaves: bool = False) -> None:
        """Drain a server without waiting for it; see ``TakesReplicas``. One that does not leave gets new weights, too.

        Raises:
            KeyError: there is no such server.
        """
        replica = self._replicas[ServerAddress.parse(url).url]
        replica.drain()
        self._spawn(self._leave(replica.name, within_s) if leaves else self._emptied(replica, within_s))

    async def health(self) -> EngineHealth:
        """Return that all is well while one replica is ready, or else why none is. Never raises."""
        replicas = list(self._replicas.values())
        if usable := self._usable():
            return usable[0].health
        if not replicas:
            return EngineHealth(ok=False, reason="unreachable", detail="the pool has no replica")
        worst = next((replica.health for replica in replicas if not replica.health.ok), None)
        detail = "; ".join(f"{replica.name}: {replica.health.detail or replica.state}" for replica in replicas)
        return EngineHealth(ok=False, reason=worst.reason if worst else "unhealthy", detail=detail)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one completion of ``session``'s replica; see ``VllmHttpEngine.generate``.

        Raises:
            EngineError: the replica failed. The error is passing where another replica could take it up.
        """
        if self._is_closed:
            raise EngineClosedError("the pool has been closed")
        replica = self._replica_of(session)
        period = replica.breaker.allow()
        result: CallResult = "cancelled"
        try:
            with replica.in_flight(len(prompt_ids) + params.max_tokens):
                chunks = replica.client.generate(prompt_ids, params, session=session, priority=priority)
                async with aclosing(chunks):
                    async for chunk in chunks:
                        yield chunk
            result = "success"
        except EngineDrainedError:
            raise
        except EngineOverloadedError as error:
            result = "success"
            if not self._moved_on(session, replica):
                raise
            raise EngineOverloadedError(str(error)) from error
        except EngineUnavailableError as error:
            result = "failure"
            replica.doubted.set()
            if not self._moved_on(session, replica):
                raise
            raise EngineUnavailableError(str(error), passing=True) from error
        except EngineError:
            result = "success"
            raise
        finally:
            if period is not None:
                replica.breaker.record(period, result)

    async def take_weights(self, folder: Path, *, version: str) -> None:
        """Replace the weights of all replicas by those in ``folder``, which they must see at the same path.

        Raises:
            EngineError: some replicas did not take them; the message says which, and why.
        """
        replicas = [one for one in self._replicas.values() if one.name not in self._on_their_way_out]
        weights = Weights(folder, version)
        await (self._weights.roll(replicas, weights) if self._rolling else load_at_once(replicas, weights))

    def _replica_of(self, session: str) -> Replica:
        """Return where a completion of ``session`` goes. Raises ``EngineUnavailableError`` where there is none."""
        before = self._sessions.get(session)
        replica = self._replicas.get(before) if before is not None else None
        if replica is None or not replica.takes_sessions:
            replica = self._roomiest(self._usable())
            self.num_failovers += before is not None and before != replica.name
            replica.num_placed += 1
        self._remember(session, replica.name)
        return replica

    def _moved_on(self, session: str, replica: Replica) -> bool:
        """Put ``session`` on another replica than ``replica``, which has failed it; return whether there is one."""
        if not (others := self._others(replica)):
            return False
        if self._sessions.get(session) == replica.name:  # Else somebody has placed it meanwhile.
            other = self._roomiest(others)
            other.num_placed += 1
            self.num_failovers += 1
            self._remember(session, other.name)
        return True

    def _roomiest(self, takers: Sequence[Replica]) -> Replica:
        if not takers:
            raise EngineUnavailableError(f"none of the {len(self._replicas)} replicas is ready")
        rooms = [replica.room_tokens for replica in takers]
        if None in rooms:  # Then they can't be compared by it.
            return min(takers, key=lambda replica: (replica.num_in_flight, replica.num_placed))
        return min(takers, key=lambda one: (-(one.room_tokens or 0), one.num_in_flight, one.num_placed))

    def _remember(self, session: str, name: str) -> None:
        self._sessions[session] = name
        self._sessions.move_to_end(session)
        if len(self._sessions) > _MAX_SESSIONS:
            self._sessions.popitem(last=False)

    def _others(self, replica: Replica) -> list[Replica]:
        return [other for other in self._takers() if other is not replica]

    def _takers(self) -> list[Replica]:
        """Return the replicas that sessions may go to: those for every run, or else those for some."""
        takers = [replica for replica in self._replicas.values() if replica.takes_sessions]
        return [replica for replica in takers if replica.health.ok] or takers

    def _usable(self) -> list[Replica]:
        """Return the takers; where completions fail everywhere, those that say that they are well all the same."""
        return self._takers() or [replica for replica in self._replicas.values() if replica.is_in_service]

    def _move_completions(self, replica: Replica) -> bool:
        """Have the completions of ``replica`` go on elsewhere; return whether there is such a place."""
        if not self._others(replica):
            return False
        moved = replica.client.abandon(EngineDrainedError(f"the replica {replica.name} is drained"))
        if moved:
            logger.info("replica %s: %d completions are moved", replica.name, moved)
        return True

    async def _moved_away(self, replica: Replica) -> None:
        """Return when the completions of ``replica`` go on elsewhere, or can't: then they stand still on it."""
        while self._move_completions(replica) and not await replica.idle_within(_MOVE_AGAIN_S):
            pass

    async def _watch(self, replica: Replica) -> None:
        times, loop = self._times, asyncio.get_running_loop()
        num_bad, looked_at = 0, loop.time()
        while True:
            replica.doubted.clear()
            before, looked_at = looked_at, loop.time()
            num_bad = 0 if await replica.look() else num_bad + 1
            if self._weights.looked_at(replica):
                self._spawn(self._weights.catch_up(replica))
            # One look may have been unlucky, and what has brought tokens since the look before is left alone.
            if num_bad >= 2 and self._others(replica):
                unwell = EngineUnavailableError(f"the replica {replica.name} is unwell", passing=True)
                replica.client.abandon(unwell, silent_s=max(loop.time() - before, times.look_every_s))
            stuck = EngineUnavailableError(f"a completion of {replica.name} has stopped", passing=True)
            replica.client.abandon(stuck, silent_s=times.stuck_s, begun_alone=True)
            with suppress(TimeoutError):
                async with asyncio.timeout(times.look_every_s):
                    await replica.doubted.wait()
                    await asyncio.sleep(times.look_every_s / 10)  # Many may doubt it at once, again and again.

    async def _keep_discovering(self) -> None:
        while True:
            await asyncio.sleep(self._times.discover_every_s)
            await self._discover()

    async def _discover(self) -> None:
        """Take in servers that are new, and let those leave that are gone. Where nothing is found, all stay."""
        try:
            found = await self._discovery.addresses()
        except EngineUnavailableError as error:
            if not self._is_lost:
                logger.warning("the pool's servers can't be looked up: %s", error)
            self._is_lost = True
            return
        self._is_lost = False
        if not found:
            return
        for url in sorted(found - self._found):
            self.add(url)
        for url in self._found - found:
            self._spawn(self._leave(url, self._times.drain_s))
        self._found = found

    async def _leave(self, url: str, within_s: float) -> None:
        with suppress(KeyError):  # Somebody has drained it.
            await self.drain(url, within_s=within_s)

    async def _emptied(self, replica: Replica, within_s: float) -> None:
        """Return when nothing runs on a drained replica any more, or it has been taken in again."""
        is_idle = await replica.idle_within(within_s)
        while not is_idle and replica.is_draining:
            self._move_completions(replica)
            is_idle = await replica.idle_within(_MOVE_AGAIN_S)

    def _spawn(self, errand: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(errand, name="pool-errand", context=Context())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
