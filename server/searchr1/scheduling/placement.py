"""Replicas, the room in their KV caches, and which of them a run goes to.

Capacities and footprints are in tokens of KV cache, of which a run holds whole blocks. What runs on a replica share as
their prefix counts once, as far as it fills blocks.
"""

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from searchr1.scheduling.shares import Part

_UNKNOWN_CAPACITY = 2**50
"""Stands for the capacity of a replica that tells none: enough for anything, so that least held is most room."""
_MAX_PREFIXES = 10_000
_MAX_HOLDERS = 4


@dataclass(slots=True, eq=False)
class Replica:
    """One engine's KV cache as the scheduler counts it."""

    name: str
    capacity_tokens: int | None
    """None where the engine does not tell."""
    healthy: bool = True
    block_tokens: int = 1
    """Tokens of one block of its KV cache, of which each run holds whole ones."""
    part: Part | None = None
    """What of its capacity is for these runs, where other schedulers use it too."""
    reserved_tokens: int = 0
    """Footprints of its runs, and the reserves for their growth."""
    footprint_tokens: int = 0
    """Footprints alone, less those of runs that will pause at the end of their turn."""
    leaving_tokens: int = 0
    """What ``reserved_tokens`` has of runs that will pause at the end of their turn."""
    num_waiting: int = 0
    """Admitted runs that wait for room here."""
    entry: int = -1
    """Number of its valid entry among the replicas by room."""
    is_kept: bool = False
    """True while it is kept for the new run whose turn it is."""
    runs: set[str] = field(default_factory=set)
    prefixes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Each prefix that its runs begin with: how many of them, and its tokens."""

    @property
    def capacity(self) -> int:
        """The capacity in tokens, endless where it is unknown."""
        return _UNKNOWN_CAPACITY if self.capacity_tokens is None else self.capacity_tokens

    @property
    def is_open(self) -> bool:
        """True where any new run may start."""
        return self.healthy and not self.num_waiting and not self.is_kept

    @property
    def room_tokens(self) -> int:
        """Tokens that nobody holds and nobody is expected to need; negative where growth was underestimated."""
        meant = self.capacity if self.part is None else min(self.part.meant, self.capacity)
        return meant - self.reserved_tokens

    @property
    def limit_tokens(self) -> int:
        """Tokens that its runs may hold."""
        return self.capacity if self.part is None else min(self.part.held, self.capacity)

    @property
    def is_overrun(self) -> bool:
        """True where its runs hold more than they may."""
        return self.footprint_tokens > self.limit_tokens

    @property
    def is_relieved(self) -> bool:
        """True where its runs, with their growth, have room, once those have left that will."""
        return self.reserved_tokens - self.leaving_tokens <= self.limit_tokens

    def in_blocks(self, tokens: int) -> int:
        """Return the tokens of the blocks that hold so many, the last one partly used."""
        return -(-tokens // self.block_tokens) * self.block_tokens

    def shareable(self, tokens: int) -> int:
        """Return how many of a prefix's tokens fill blocks: no other blocks are shared."""
        return tokens - tokens % self.block_tokens

    def fits(self, tokens: int, prefix: str | None, prefix_tokens: int) -> bool:
        """Return whether a run has room here. A replica without runs has room for any, so that every run can end."""
        shared = self.shareable(prefix_tokens) if prefix in self.prefixes else 0
        return self.healthy and (not self.runs or self.in_blocks(tokens) - shared <= self.room_tokens)


class Replicas:
    """All replicas, the one with most room at hand, and who holds which prefix."""

    def __init__(self, prefix_worth: float) -> None:
        self._prefix_worth = prefix_worth
        self._replicas: dict[str, Replica] = {}
        self._by_room: list[tuple[int, int, str]] = []
        self._pushes = itertools.count()
        """Numbers of entries: of equals, the one that has been as it is for longest comes first."""
        self._holders: OrderedDict[str, OrderedDict[str, None]] = OrderedDict()
        self.largest_tokens = 0
        """Capacity of the largest healthy replica; 0 where there is none."""
        self.healthy_tokens = 0
        """Tokens that runs may hold on all healthy replicas."""
        self.num_healthy = 0

    def __getitem__(self, name: str) -> Replica:
        return self._replicas[name]

    def get(self, name: str | None) -> Replica | None:
        """Return a replica by its name, if it is there."""
        return None if name is None else self._replicas.get(name)

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._replicas.values())

    def change(
        self, name: str, capacity_tokens: int | None, *, healthy: bool, block_tokens: int, part: Part | None = None
    ) -> Replica:
        """Add a replica or change it, and return it. What its runs are charged stays until they grow."""
        replica = self._replicas.setdefault(name, Replica(name, capacity_tokens))
        replica.capacity_tokens, replica.healthy, replica.part = capacity_tokens, healthy, part
        replica.block_tokens = block_tokens
        healthy_ones = [replica for replica in self._replicas.values() if replica.healthy]
        self.num_healthy = len(healthy_ones)
        self.healthy_tokens = sum(replica.limit_tokens for replica in healthy_ones)
        self.largest_tokens = max((replica.capacity for replica in healthy_ones), default=0)
        self.room_changed(replica)
        return replica

    def drop(self, name: str) -> None:
        """Forget a replica that has no runs, if it is there."""
        self._replicas.pop(name, None)

    def room_changed(self, replica: Replica) -> None:
        """Take note that a replica has more or less room than before, or is open again."""
        replica.entry = next(self._pushes)
        if not replica.is_open:
            return
        heapq.heappush(self._by_room, (-replica.room_tokens, replica.entry, replica.name))
        if len(self._by_room) > 8 * len(self._replicas) + 64:
            self._by_room = [(-r.room_tokens, r.entry, r.name) for r in self._replicas.values() if r.is_open]
            heapq.heapify(self._by_room)

    def roomiest(self) -> Replica | None:
        """Return the open replica with most room."""
        while self._by_room:
            _, entry, name = self._by_room[0]
            replica = self._replicas.get(name)
            if replica is not None and replica.is_open and entry == replica.entry:
                return replica
            heapq.heappop(self._by_room)
        return None

    def roomiest_of_all(self) -> Replica | None:
        """Return the healthy replica with most room, whether it is open or not."""
        healthy = (replica for replica in self._replicas.values() if replica.healthy)
        return max(healthy, key=lambda replica: replica.room_tokens, default=None)

    def place(self, tokens: int, prefix: str | None, prefix_tokens: int) -> Replica | None:
        """Return the open replica for a run that needs ``tokens``, or None where none has room.

        That is the one with most room. A replica that has the run's prefix in its cache is preferred to one with more
        room, as far as the prefix is worth it.
        """
        best = self.roomiest()
        if best is None:
            return None
        holders = [self._replicas[name] for name in self._holders.get(prefix or "", ()) if name in self._replicas]
        fitting = [replica for replica in holders if replica.is_open and replica.fits(tokens, prefix, prefix_tokens)]
        if best.fits(tokens, prefix, prefix_tokens):
            least_room = best.room_tokens - self._prefix_worth * prefix_tokens
            fitting = [replica for replica in fitting if replica.room_tokens >= least_room] or [best]
        return max(fitting, key=lambda replica: replica.room_tokens, default=None)

    def has_prefix(self, replica: Replica, prefix: str) -> None:
        """Take note that a replica has a prefix in its cache now."""
        holders = self._holders.setdefault(prefix, OrderedDict())
        holders[replica.name] = None
        holders.move_to_end(replica.name)
        if len(holders) > _MAX_HOLDERS:
            holders.popitem(last=False)
        self._holders.move_to_end(prefix)
        if len(self._holders) > _MAX_PREFIXES:
            self._holders.popitem(last=False)
