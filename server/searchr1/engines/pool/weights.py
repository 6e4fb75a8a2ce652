"""New weights in the replicas of a pool: one after the other, so that no run is lost, or all at once.

A pool whose weights were rolled over keeps to them: a server that joins it, or that was away and may have started
again with other weights, gets them before it gets sessions.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from searchr1.engines.pool.replica import Replica
from searchr1.engines.probe import probe
from searchr1.errors import EngineError, EngineUnavailableError

logger = logging.getLogger(__name__)

_PROBE_IDS: Final = (0, 1, 2)
_RESTARTED: Final = frozenset({"unreachable", "starting", "model_not_served"})
"""Words for servers that may have another process, and so other weights, when they are well again."""
_AGAIN_S: Final = 10.0
"""Pause after weights that a single replica did not take."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A checkpoint folder, and what its weights are called."""

    folder: Path
    version: str


async def load_at_once(replicas: Sequence[Replica], weights: Weights) -> None:
    """Replace all replicas' weights at once: completions that run stand still meanwhile, and go on with the new ones.

    Raises:
        EngineError: some did not take them; the message says which, and why.
    """
    loading = (replica.client.take_weights(weights.folder, version=weights.version) for replica in replicas)
    _raise(await asyncio.gather(*loading, return_exceptions=True))


class RollingWeights:
    """The weights that all replicas of a pool have, once it was given any.

    ``empty`` returns when nothing runs on a replica any more.
    """

    def __init__(self, empty: Callable[[Replica], Awaitable[None]]) -> None:
        self._empty = empty
        self._current: Weights | None = None
        self._loading = asyncio.Lock()
        self._has: dict[Replica, Weights] = {}
        self._doubted: set[Replica] = set()
        """Those that may have started again since they were given theirs."""
        self._catching_up: set[Replica] = set()

    async def roll(self, replicas: Sequence[Replica], weights: Weights) -> None:
        """Replace the weights of one replica after the other: drain, load, probe, admit.

        While it rolls, runs may go on with other weights than they began with. Replicas that are not there get the
        weights when they are.

        Raises:
            EngineUnavailableError: none is there.
            EngineError: a replica did not take them. It takes no sessions until it has taken others: its weights may be
                half replaced. Those before it have the new ones, those after it the old ones.
        """
        async with self._loading:
            are_there = await asyncio.gather(*map(_is_there, replicas))
            there = [replica for replica, is_there in zip(replicas, are_there, strict=True) if is_there]
            if not there:
                raise EngineUnavailableError(f"none of the {len(replicas)} replicas is there to take weights")
            for replica in there:
                await self._load(replica, weights, is_alone=len(there) == 1)
            self._current = weights
            for replica in replicas:
                self.joined(replica)

    def joined(self, replica: Replica) -> None:
        """Keep sessions from a replica that has not the pool's weights."""
        if self._lacks(replica):
            replica.begin_loading()

    def left(self, replica: Replica) -> None:
        """Forget a replica."""
        self._has.pop(replica, None)
        self._doubted.discard(replica)

    def looked_at(self, replica: Replica) -> bool:
        """Take note of a replica's health; return whether ``catch_up`` should be called now."""
        if replica.health.reason in _RESTARTED and replica in self._has:
            self._doubted.add(replica)
            replica.begin_loading()
        return (
            replica.serves and self._lacks(replica) and not self._loading.locked() and replica not in self._catching_up
        )

    async def catch_up(self, replica: Replica) -> None:
        """Give a replica the pool's weights; where it does not take them, log that and return a while later."""
        self._catching_up.add(replica)
        try:
            async with self._loading:
                if await self._has_kept(replica):
                    replica.end_loading()
                elif self._current is not None and self._lacks(replica):
                    await self._load(replica, self._current, is_alone=False)
        except EngineError as error:
            logger.warning("replica %s takes no sessions: it lacks the pool's weights: %s", replica.name, error)
            await asyncio.sleep(_AGAIN_S)
        finally:
            self._catching_up.discard(replica)

    async def _has_kept(self, replica: Replica) -> bool:
        """Find out whether a doubted replica still has the pool's weights: it has if nobody started it again."""
        if replica not in self._doubted:
            return False
        version = await replica.client.weights_version()
        self._doubted.discard(replica)
        kept = self._has.pop(replica)
        if kept != self._current or version != kept.version:
            return False
        self._has[replica] = kept
        return True

    def _lacks(self, replica: Replica) -> bool:
        return self._current is not None and (replica in self._doubted or self._has.get(replica) != self._current)

    async def _load(self, replica: Replica, weights: Weights, *, is_alone: bool) -> None:
        """Replace a replica's weights; one that is alone keeps its sessions, which stand still meanwhile."""
        was_open = not replica.is_loading
        if not is_alone:
            replica.begin_loading()
            await self._empty(replica)
        before = None if replica in self._doubted else self._has.get(replica)
        self.left(replica)
        try:
            await replica.client.take_weights(weights.folder, version=weights.version)
        except EngineError as error:
            if isinstance(error, EngineUnavailableError):
                replica.begin_loading()
            else:  # It offers no way to do this, and has the weights that it had.
                self._keep(replica, before, is_open=was_open)
            _raise([error])
        try:
            await probe(replica.client, _PROBE_IDS, num_tokens=2, session="weights-probe", name=replica.name)
        except EngineError as error:
            replica.begin_loading()
            _raise([error])
        self._has[replica] = weights
        replica.end_loading()

    def _keep(self, replica: Replica, weights: Weights | None, *, is_open: bool) -> None:
        if weights is not None:
            self._has[replica] = weights
        if is_open:
            replica.end_loading()


async def _is_there(replica: Replica) -> bool:
    return await replica.look() or await replica.look()  # One look may be unlucky.


def _raise(results: Sequence[BaseException | None]) -> None:
    failures = [error for error in results if error is not None]
    for error in failures:
        if not isinstance(error, EngineError):
            raise error
    if failures:
        raise EngineError(f"new weights did not reach every replica: {'; '.join(map(str, failures))}") from failures[0]
