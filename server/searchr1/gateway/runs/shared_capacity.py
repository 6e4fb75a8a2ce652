"""Capacity that several processes share: gateways before the same engines, and the workers of one gateway.

On a board (``capacity_board.py``), in Redis, each process announces, about once a second and under a short lease, what
it wants of a capacity and what it holds of it. ``scheduling/shares.py`` says what is meant for each. What a process
loses it gives back as its runs end, and what one held that has died comes back when its lease ends. Several models of a
process without a Redis share likewise, on a board in its memory: their engine may be one.

While Redis does not answer, each keeps what it held last. One that never had an answer takes a small part.
"""

import asyncio
import hashlib
import logging
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from searchr1.gateway.runs.capacity_board import Announcement, Board, BoardError, RedisBoard
from searchr1.redis_client import Outages, open_redis
from searchr1.scheduling.shares import Demand, Part, divide, steady
from searchr1.settings import Settings
from searchr1.sockets import is_loopback

logger = logging.getLogger(__name__)

BALANCE_S: Final = 1.0
"""Seconds between two announcements."""
_UNTOLD_PART: Final = 4
"""Of a replica's capacity a gateway takes this part at most, while no Redis has told of other gateways."""
_KEY: Final = "sr1:share:"


@dataclass(frozen=True, slots=True)
class _Capacity:
    """A capacity that is shared."""

    whole: int
    floor: int
    first: int
    """What this process takes at once, as far as others leave it: more comes once they had time to speak up."""
    untold: int
    """This process's part while no Redis has ever told."""


@dataclass(slots=True)
class _Standing:
    """What this process has of one capacity."""

    part: Part | None = None
    demand: int = 0
    others: Mapping[str, int] = field(default_factory=dict)
    """Demands of the other processes, as they were told last."""


class SharedCapacity:
    """This process's parts of what it uses together with others.

    Args:
        board: where this process announces, closed with this.
        floor_tokens: what the largest run may need: an idle process has so much of each replica.
        gateway: name of the gateway whose worker this process is, where it has several.
        num_workers: of this gateway.
    """

    def __init__(self, board: Board, *, floor_tokens: int, gateway: str = "", num_workers: int = 1) -> None:
        self._board = board
        self._floor_tokens, self._num_workers = floor_tokens, num_workers
        self._gateway, self._runs = gateway, f"runs {gateway}"
        self._member = secrets.token_hex(8)
        self._standings: dict[str, _Standing] = {}
        self._outages = Outages("The balance of capacity with other processes", logger)

    @property
    def shares_runs(self) -> bool:
        """Whether other workers of this gateway count its runs too."""
        return bool(self._gateway)

    async def part_of_runs(self, whole: int, demand: Demand) -> Part:
        """Return this worker's part of the runs that its gateway may have at once, after a round of announcements."""
        return await self._balance(
            self._runs,
            _Capacity(whole, floor=1, first=whole // self._num_workers, untold=whole // self._num_workers),
            used=demand.num_admitted,
            wanted=demand.num_runs,
        )

    async def parts_of_replicas(self, whole_tokens: Mapping[str, int], demand: Demand) -> dict[str, Part]:
        """Return this process's part of each replica's capacity, after a round of announcements.

        Replicas are named by their addresses: so do the other processes.
        """
        each_tokens = demand.unplaced_tokens // max(1, len(whole_tokens))
        used = {name: demand.charged_tokens.get(name, 0) for name in whole_tokens}
        rounds = [
            self._balance(
                _machine_wide(name),
                _Capacity(
                    whole,
                    self._floor_tokens,
                    first=self._floor_tokens,
                    untold=whole // (_UNTOLD_PART * self._num_workers),
                ),
                used=used[name],
                wanted=used[name] + each_tokens,
            )
            for name, whole in whole_tokens.items()
        ]
        parts = dict(zip(whole_tokens, await asyncio.gather(*rounds), strict=True))
        kept = {_key(_machine_wide(name)) for name in whole_tokens} | {_key(self._runs)}
        # Addresses come and go where pods do.
        if gone := self._standings.keys() - kept:
            await self._withdraw(gone)
            self._standings = {key: standing for key, standing in self._standings.items() if key in kept}
        return parts

    async def aclose(self) -> None:
        """Give everything back, and close the client."""
        await self._withdraw(self._standings)
        await self._board.aclose()

    async def _withdraw(self, keys: Iterable[str]) -> None:
        try:
            await self._board.withdraw(self._member, keys)
        except BoardError as error:
            logger.info("the leases of shared capacity end by themselves: %s", error)

    async def _balance(self, name: str, capacity: "_Capacity", *, used: int, wanted: int) -> Part:
        key = _key(name)
        standing = self._standings.setdefault(key, _Standing())
        standing.demand = steady(standing.demand, wanted)
        demands = {**self._absent(standing.others), **standing.others, self._member: standing.demand}
        meant = divide(capacity.whole, capacity.floor, demands)[self._member]
        held_before = standing.part.held if standing.part else capacity.first
        announcement = Announcement(
            key, self._member, capacity.whole, meant, used, before=held_before, demand=standing.demand
        )
        try:
            told = await self._board.announce(announcement)
        except BoardError as error:
            self._outages.failed(name, str(error))
            standing.part = standing.part or Part(capacity.untold, capacity.untold)
        else:
            self._outages.worked(name)
            standing.others = told.others
            standing.part = Part(min(meant, told.held), told.held)
        return standing.part

    def _absent(self, others: Mapping[str, int]) -> dict[str, int]:
        """Return demands of the workers that are not here yet, or not again: something is left for them."""
        return {f"absent {number}": 0 for number in range(len(others) + 1, self._num_workers)}


def open_shared_capacity(
    settings: Settings, *, gateway: str = "", beside: Board | None = None
) -> SharedCapacity | None:
    """Return what the settings call for: None where nobody else can use the engine, or nobody can be told of.

    ``beside`` is the board of the models of this process, for where no Redis is named.
    """
    if settings.engine_url is None:
        return None
    board = beside if settings.redis_url is None else RedisBoard(open_redis(settings.redis_url.get_secret_value()))
    if board is None:
        return None
    return SharedCapacity(
        board,
        floor_tokens=settings.max_context_tokens + settings.max_completion_tokens,
        gateway=f"{gateway} {settings.public_name}" if gateway else "",
        num_workers=settings.workers,
    )


def _machine_wide(address: str) -> str:
    """Return an address by which every machine means the same engine: of a loopback, with the machine's name."""
    host = urlsplit(address).hostname or ""
    return f"{socket.gethostname()} {address}" if is_loopback(host) else address


def _key(name: str) -> str:
    return f"{_KEY}{{{hashlib.sha256(name.encode()).hexdigest()[:32]}}}"
