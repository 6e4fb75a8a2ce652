"""Requests, and those of them that write a token in every step: counted together, so that a step costs no look at each.

A count of decode steps goes up by one in each step. What a request has in the KV cache is its base and that count, so
that bases alone are kept, and steps may be counted many at once.
"""

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Request:
    """One completion that a replica is asked for."""

    own: str
    """Names the chain of blocks that later turns of the same run go on with."""
    prefix: str
    prefix_tokens: int
    prompt_tokens: int
    num_sampled: int
    """Tokens that it will write."""
    priority: int = 0
    came_at: float = 0.0
    order: int = 0
    """Its place among all that came."""
    started: int = 0
    """Its place among all that started, preempted ones each time anew."""
    num_written: int = 0
    num_computed: int = 0
    """Tokens in the KV cache, while it is not decoding."""
    num_blocks: int = 0
    """Blocks held past the prefix."""
    decode_base: int = 0
    """``num_computed`` less the count of decode steps, while it decodes."""
    is_decoding: bool = False
    finishes_at: int = 0
    """The count of decode steps at which it has written all."""
    entry: int = 0
    """Number of its valid entry among those that will finish."""
    cached_tokens: int = 0
    """What was found when it first started."""
    recomputed_tokens: int = 0
    """Prompt and completion tokens computed again after preemptions."""
    num_preemptions: int = 0
    first_token_at: float = -1.0

    @property
    def num_tokens(self) -> int:
        """Prompt and what was written so far."""
        return self.prompt_tokens + self.num_written


class Decoding:
    """The requests of one replica that decode."""

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._num_steps = 0
        self.num = 0
        self._sum_bases = 0
        self._at_edge: list[dict[int, Request]] = [{} for _ in range(block_size)]
        self._finishing: list[tuple[int, int, int, Request]] = []
        self._entries = itertools.count()

    def add(self, request: Request) -> None:
        """Let a request write a token in each step until it has written all."""
        finishes_at = self._num_steps + request.num_sampled - request.num_written
        self._add(request, request.num_computed - self._num_steps, finishes_at)

    def hold_back(self, request: Request) -> None:
        """Leave a request out of the next step."""
        self._remove(request)
        self._add(request, request.decode_base - 1, request.finishes_at + 1)

    def remove(self, request: Request) -> None:
        """Take a request out, and write down how far it came."""
        self._remove(request)
        request.num_computed = request.decode_base + self._num_steps
        request.num_written = request.num_computed - request.prompt_tokens + 1

    def at_block_edge(self, step: int) -> dict[int, Request]:
        """Return those that need a new block so many steps from now, by their order."""
        return self._at_edge[(self._num_steps + step) % self._block_size]

    def num_context_tokens(self, held_back: Sequence[Request]) -> int:
        """Return the tokens of context that the next step reads, without those of requests that are held back."""
        return (
            self._sum_bases
            + self.num * self._num_steps
            - sum(request.decode_base + self._num_steps for request in held_back)
        )

    def steps_to_next_finish(self) -> int:
        """Return the steps after which the first one has written all; there must be one."""
        while True:
            ends, _, entry, request = self._finishing[0]
            if request.is_decoding and request.entry == entry:
                return ends - self._num_steps
            heapq.heappop(self._finishing)

    def count(self, steps: int) -> list[Request]:
        """Count steps, and return the requests that wrote their last token in them."""
        self._num_steps += steps
        finished = []
        while self._finishing and self._finishing[0][0] <= self._num_steps:
            _, _, entry, request = heapq.heappop(self._finishing)
            if request.is_decoding and request.entry == entry:
                finished.append(request)
        return finished

    def _add(self, request: Request, base: int, finishes_at: int) -> None:
        request.is_decoding, request.decode_base, request.finishes_at = True, base, finishes_at
        self.num += 1
        self._sum_bases += base
        self._at_edge[-base % self._block_size][request.order] = request
        request.entry = next(self._entries)
        heapq.heappush(self._finishing, (finishes_at, request.order, request.entry, request))

    def _remove(self, request: Request) -> None:
        request.is_decoding = False
        self.num -= 1
        self._sum_bases -= request.decode_base
        del self._at_edge[-request.decode_base % self._block_size][request.order]
