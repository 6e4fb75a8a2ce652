"""One vLLM replica, step by step: continuous batching, chunked prefill, priorities, preemption by recompute.

As vLLM 0.32 schedules (``v1/core/sched/scheduler.py``): running requests first, a token for each that decodes, then the
chunk of the one whose prompt was not finished; where blocks run out, the last request (fcfs) or the one of the lowest
priority is preempted, and its blocks are freed; where that is the one that needs a block, those that started after it
are left out of the step. If none was preempted, waiting requests start while tokens, sequences
and blocks last; the head of the queue starts only when blocks for its whole prompt are there, and nobody passes it. A
step that completes a prompt gives the first token; the last token of a completion never enters the KV cache.

Steps in which nothing but decoding happens are merged into one span, up to the next completion or the last free block.
A request that comes in the meantime cuts the span at the end of its current step. The time of a step in a span is that
of its first: contexts that grow by a few tokens are not seen.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable

from loadtests.simulator.decoding import Decoding, Request
from loadtests.simulator.kv_cache import KVCache
from loadtests.simulator.rates import EngineParams, EnginePolicy


class Replica:
    """A replica. Its owner calls ``submit``, and ``end_span`` at the time that ``ends_at`` says."""

    def __init__(
        self,
        params: EngineParams,
        policy: EnginePolicy,
        done: Callable[[Request, float], None],
        keeps: Callable[[Request], bool] = lambda request: False,
    ) -> None:
        """``done`` is told of completions; ``keeps`` says whether a completion's blocks are pinned at its end."""
        self.params = params
        self.policy = policy
        self.cache = KVCache(params.num_blocks, params.block_size)
        self.ends_at: float | None = None
        """When the steps under way end; None while it is idle."""
        self.num_preemptions = 0
        self.num_steps = 0
        self._done = done
        self._keeps = keeps
        self._pinned: dict[str, Request] = {}
        self._is_ending = False
        self._line: deque[Request] = deque()
        self._heap: list[tuple[int, float, int, Request]] = []
        self._running: dict[int, Request] = {}
        self._prefilling: list[Request] = []
        self._orders, self._starts = itertools.count(), itertools.count()
        self._decoding = Decoding(params.block_size)
        self._span_start = 0.0
        self._span_step_s = 0.0
        self._span_steps = 0
        self._span_preempted = False
        self._is_cut_short = False
        """A request had to preempt itself, and those that started after it are left out of the step under way."""
        self._held_back: list[Request] = []
        """Requests that decode, and that the step under way leaves out."""

    @property
    def num_waiting(self) -> int:
        """Requests in the queue."""
        return len(self._line) + len(self._heap)

    @property
    def num_running(self) -> int:
        """Requests in the batch."""
        return len(self._running)

    def submit(self, request: Request, now: float) -> None:
        """Take a request; ``ends_at`` may come earlier by it."""
        was_blocked = self.policy == "fcfs" and len(self._line) > 0
        request.came_at, request.order = now, next(self._orders)
        self._queue(request)
        if self.ends_at is None:
            self.wake(now)
        elif self._span_steps > 1 and not was_blocked:
            begun = max(1, -int(-(now - self._span_start) // self._span_step_s))
            if begun < self._span_steps:
                self._span_steps = begun
                self.ends_at = self._span_start + begun * self._span_step_s

    def end_span(self, now: float) -> None:
        """End the steps under way: give out what was finished, and begin the next steps."""
        self._allocate_later_steps(self._span_steps)
        self.num_steps += self._span_steps
        finished = self._decoding.count(self._span_steps)
        finished += self._end_prefills(now)
        finished.sort(key=lambda request: request.started)
        self.ends_at = None
        for request in finished:
            self._stop(request)
            self._let_go(request)
        self._is_ending = True
        for request in finished:
            self._done(request, now)
        self._is_ending = False
        self._begin_span(now)

    def unpin(self, own: str, now: float) -> None:
        """Let the blocks go that were kept for the run ``own``, if they still are."""
        pinned = self._pinned.pop(own, None)
        if pinned is not None:
            self.cache.unpin(pinned.prefix, own)
            self.wake(now)

    def wake(self, now: float) -> None:
        """Begin steps where nothing goes on, if there is anything to do."""
        if self.ends_at is None and not self._is_ending:
            self._begin_span(now)

    def _let_go(self, request: Request) -> None:
        hashed, unhashed = self._own_blocks(request)
        if self._keeps(request):
            self.cache.pin(request.own, hashed, unhashed)
            self._pinned[request.own] = request
        else:
            self.cache.free(request.prefix, request.own, hashed, unhashed)

    def _own_blocks(self, request: Request) -> tuple[int, int]:
        prefix_blocks = request.prefix_tokens // self.params.block_size
        hashed = max(0, request.num_computed // self.params.block_size - prefix_blocks)
        return hashed, request.num_blocks - hashed

    # The queue

    def _queue(self, request: Request, *, in_front: bool = False) -> None:
        if self.policy == "priority":
            heapq.heappush(self._heap, (request.priority, request.came_at, request.order, request))
        elif in_front:
            self._line.appendleft(request)
        else:
            self._line.append(request)

    def _head(self) -> Request | None:
        if self.policy == "priority":
            return self._heap[0][-1] if self._heap else None
        return self._line[0] if self._line else None

    def _take_head(self) -> None:
        if self.policy == "priority":
            heapq.heappop(self._heap)
        else:
            self._line.popleft()

    # Steps

    def _begin_span(self, now: float) -> None:
        self._span_preempted = False
        self._is_cut_short = False
        self._held_back.clear()
        self._allocate_first_step()
        num_decoding = self._decoding.num - len(self._held_back)
        budget = self.params.max_num_batched_tokens - num_decoding
        num_prefilled = self._go_on_with_prompts(budget)
        if not self._span_preempted:
            num_prefilled += self._start_waiting(budget - num_prefilled)
        if not self._running:
            if self._span_preempted:
                self._prefilling.clear()
                self._begin_span(now)
            return
        params = self.params
        contexts = self._decoding.num_context_tokens(self._held_back)
        self._span_start = now
        self._span_step_s = (
            params.step_s
            + params.prefill_token_s * num_prefilled
            + params.decode_s * num_decoding
            + params.context_token_s * contexts
        )
        self._span_steps = 1 if self._prefilling or self._span_preempted else self._num_plain_steps()
        self.ends_at = now + self._span_steps * self._span_step_s

    def _num_plain_steps(self) -> int:
        """Return the steps until a completion ends or blocks may run out."""
        steps = self._decoding.steps_to_next_finish()
        free = self.cache.num_free
        if self._decoding.num * (steps // self.params.block_size + 1) <= free:
            return steps
        for step in range(1, steps):
            free -= len(self._decoding.at_block_edge(step))
            if free < 0:
                return step
        return steps

    def _allocate_first_step(self) -> None:
        """Give blocks to those whose next token needs a new one; where none is left, preempt."""
        crossing = self._decoding.at_block_edge(0)
        if len(crossing) <= self.cache.num_free:
            self._give_block_to(crossing)
            return
        for request in [request for request in self._running.values() if request.order in crossing]:
            if not request.is_decoding:
                continue
            if not self._make_room(1, request):
                self._is_cut_short = True
                self._hold_back_after(request)
                return
            self.cache.allocate(1)
            request.num_blocks += 1

    def _hold_back_after(self, preempted: Request) -> None:
        """Leave those out of this step that started after a request which had to preempt itself."""
        for request in self._running.values():
            if request.started > preempted.started and request.is_decoding:
                self._decoding.hold_back(request)
                self._held_back.append(request)

    def _allocate_later_steps(self, steps: int) -> None:
        for step in range(1, steps):
            self._give_block_to(self._decoding.at_block_edge(step))

    def _give_block_to(self, requests: dict[int, Request]) -> None:
        if requests:
            self.cache.allocate(len(requests))
            for request in requests.values():
                request.num_blocks += 1

    def _make_room(self, num_blocks: int, request: Request) -> bool:
        """Preempt until there are free blocks; false where ``request`` itself had to go."""
        while self.cache.num_free < num_blocks:
            victim = next(reversed(self._running.values()))
            if self.policy == "priority":
                victim = max(self._running.values(), key=_last_in_line)
            self._preempt(victim)
            if victim is request:
                return False
        return True

    def _preempt(self, request: Request) -> None:
        self._span_preempted = True
        self.num_preemptions += 1
        self._stop(request)
        self.cache.free(request.prefix, request.own, *self._own_blocks(request))
        request.num_preemptions += 1
        request.recomputed_tokens += request.num_computed
        request.num_computed = request.num_blocks = 0
        self._queue(request, in_front=True)

    def _go_on_with_prompts(self, budget: int) -> int:
        """Compute the next chunk of prompts that were begun. Returns the tokens computed."""
        used = 0
        if self._is_cut_short:
            return 0
        for request in list(self._prefilling):
            if request.order not in self._running:
                continue
            chunk = min(request.num_tokens - request.num_computed, budget - used)
            if chunk > 0 and self._compute(request, chunk, must_fit=False):
                used += chunk
        return used

    def _compute(self, request: Request, num_tokens: int, *, must_fit: bool) -> bool:
        """Allocate for the next tokens of a prompt; false where the request was preempted for lack of blocks."""
        size = self.params.block_size
        total = -(-(request.num_computed + num_tokens) // size) - request.prefix_tokens // size
        more = max(0, total - request.num_blocks)
        if not must_fit and not self._make_room(more, request):
            return False
        self.cache.allocate(more)
        request.num_blocks += more
        request.num_computed += num_tokens
        return True

    def _start_waiting(self, budget: int) -> int:
        """Start requests from the queue while tokens, sequences and blocks last. Returns the tokens computed."""
        used = 0
        size = self.params.block_size
        while used < budget and len(self._running) < self.params.max_num_seqs and (request := self._head()):
            prefix_blocks = request.prefix_tokens // size
            hit = self.cache.find(request.prefix, prefix_blocks, request.own, request.num_tokens)
            if self.cache.num_needed(request.prefix, request.own, hit, request.num_tokens) > self.cache.num_free:
                if self._running or not self._unpin_one(request):
                    break
                continue
            self._take_head()
            self.cache.hold(request.prefix, prefix_blocks, request.own, hit)
            if self._pinned.pop(request.own, None) is not None:
                self.cache.unpin(request.prefix, request.own)
            request.num_blocks = hit.own_blocks
            request.num_computed = hit.num_blocks * size
            if request.num_preemptions:
                request.recomputed_tokens -= request.num_computed
            else:
                request.cached_tokens = request.num_computed
            chunk = min(request.num_tokens - request.num_computed, budget - used)
            request.started = next(self._starts)
            self._running[request.order] = request
            self._prefilling.append(request)
            self._compute(request, chunk, must_fit=True)
            used += chunk
        return used

    def _unpin_one(self, request: Request) -> bool:
        """Unpin the run of the lowest priority, where nothing runs and ``request`` has no room for that reason."""
        others = [pinned for own, pinned in self._pinned.items() if own != request.own]
        if not others:
            if self.cache.num_free == self.cache.num_blocks:
                raise ValueError(f"a request of {request.num_tokens} tokens exceeds the whole KV cache")
            return False
        last = max(others, key=lambda pinned: pinned.priority)
        del self._pinned[last.own]
        self.cache.unpin(last.prefix, last.own)
        return True

    # Ends

    def _end_prefills(self, now: float) -> list[Request]:
        finished, left = [], []
        for request in self._prefilling:
            if request.order not in self._running:
                continue
            if request.num_computed < request.num_tokens:
                left.append(request)
                continue
            request.num_written += 1
            if request.first_token_at < 0:
                request.first_token_at = now
            if request.num_written == request.num_sampled:
                finished.append(request)
            else:
                self._decoding.add(request)
        self._prefilling = left
        return finished

    def _stop(self, request: Request) -> None:
        """Take a request out of the batch, wherever it stands."""
        del self._running[request.order]
        if request.is_decoding:
            self._decoding.remove(request)


def _last_in_line(request: Request) -> tuple[int, float, int]:
    return request.priority, request.came_at, request.order
