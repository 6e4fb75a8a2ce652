"""The KV cache of one vLLM replica: blocks, the prefix cache over them, and the order in which they are reused.

As vLLM 0.32 has it (``v1/core/block_pool.py``, ``kv_cache_manager.py``): full blocks are found by the hash of all
tokens up to their end; freed blocks keep their content until they are reused; blocks without a hash are reused first,
then those that were freed longest ago, of one request its last block first. A request finds at most all but its last
token.

A run's blocks are freed and reused together, so that they are counted, not listed: an ``Extent`` is the cached part of
one chain of hashes that is not shared with others. A request has two: the prefix that many share, and its own.
"""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Extent:
    """Blocks of one chain from its beginning on: those with a hash, and how many requests hold them."""

    chain: str
    num_blocks: int = 0
    num_holders: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """What the cache has of a request's tokens, in blocks."""

    prefix_blocks: int
    own_blocks: int

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self.prefix_blocks + self.own_blocks


class KVCache:
    """Blocks in use, free, and free with content that may be found again."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self._num_empty = num_blocks
        self._num_kept = 0
        self._extents: dict[str, Extent] = {}
        self._reusable: OrderedDict[int, Extent] = OrderedDict()

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""
        return self._num_empty + self._num_kept

    def find(self, prefix: str, prefix_blocks: int, own: str, num_tokens: int) -> Hit:
        """Return what is cached of a request of ``num_tokens``; its prefix has ``prefix_blocks`` full blocks."""
        most = (num_tokens - 1) // self.block_size
        first = self._extents.get(prefix)
        found = min(first.num_blocks if first else 0, prefix_blocks, most)
        rest = self._extents.get(own)
        if found < prefix_blocks or rest is None:
            return Hit(found, 0)
        return Hit(found, min(rest.num_blocks, most - found))

    def num_needed(self, prefix: str, own: str, hit: Hit, num_tokens: int) -> int:
        """Return the free blocks that a request takes, those included that it finds and nobody holds."""
        needed = -(-num_tokens // self.block_size) - hit.num_blocks
        for chain, num_blocks in ((prefix, hit.prefix_blocks), (own, hit.own_blocks)):
            if num_blocks and self._extents[chain].num_holders == 0:
                needed += num_blocks
        return needed

    def hold(self, prefix: str, prefix_blocks: int, own: str, hit: Hit) -> None:
        """Take hold of what was found, and of the blocks for the rest of the prefix. The caller has seen to room.

        The prefix counts as computed at once; vLLM has it as soon as the first chunk of the first request is scheduled.
        """
        self._held(own, hit.own_blocks)
        first = self._held(prefix, hit.prefix_blocks)
        self.allocate(prefix_blocks - first.num_blocks)
        first.num_blocks = prefix_blocks

    def allocate(self, num_blocks: int) -> None:
        """Take free blocks; what was kept in them is lost, longest unused first."""
        empty = min(num_blocks, self._num_empty)
        self._num_empty -= empty
        num_blocks -= empty
        while num_blocks > 0:
            key, extent = next(iter(self._reusable.items()))
            taken = min(num_blocks, extent.num_blocks)
            extent.num_blocks -= taken
            self._num_kept -= taken
            num_blocks -= taken
            if extent.num_blocks == 0:
                del self._reusable[key]
                if self._extents.get(extent.chain) is extent:
                    del self._extents[extent.chain]

    def free(self, prefix: str, own: str, num_hashed: int, num_unhashed: int) -> None:
        """Let go of a request's own blocks and of its prefix: those with a hash are kept until they are reused."""
        self._num_empty += num_unhashed
        extent = self._extents[own]
        extent.num_blocks = num_hashed
        self._let_go(extent)
        self._let_go(self._extents[prefix])

    def pin(self, own: str, num_hashed: int, num_unhashed: int) -> None:
        """Let go of what has no hash alone; prefix and own blocks stay held until ``unpin`` or the next ``hold``."""
        self._num_empty += num_unhashed
        self._extents[own].num_blocks = num_hashed

    def unpin(self, prefix: str, own: str) -> None:
        """Let go of what ``pin`` left held."""
        self._let_go(self._extents[own])
        self._let_go(self._extents[prefix])

    def _held(self, chain: str, num_found: int) -> Extent:
        """Return the extent of a chain with one holder more. Blocks past those found stay behind, unfindable."""
        extent = self._extents.get(chain)
        if extent is not None and extent.num_holders == 0:
            if extent.num_blocks == num_found:
                del self._reusable[id(extent)]
            else:
                extent.num_blocks -= num_found
                extent = None
            self._num_kept -= num_found
        if extent is None:
            extent = self._extents[chain] = Extent(chain, num_found)
        extent.num_holders += 1
        return extent

    def _let_go(self, extent: Extent) -> None:
        extent.num_holders -= 1
        if extent.num_holders:
            return
        if extent.num_blocks:
            self._reusable[id(extent)] = extent
            self._num_kept += extent.num_blocks
        else:
            del self._extents[extent.chain]
