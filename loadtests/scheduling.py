"""Costs of the gateway's scheduler: CPU time of a run's events, of a refusal and of a tick, by length of the queue.

python -m loadtests.scheduling
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Sequence

from searchr1.scheduling.decisions import Admit, Decision
from searchr1.scheduling.options import SchedulingOptions
from searchr1.scheduling.scheduler import Scheduler

_NUM_REPLICAS = 16
_TOKENS = 1000
_REPEATS = 5000


class Load:
    """A scheduler whose replicas and queue are full."""

    def __init__(self, num_admitted: int, num_queued: int) -> None:
        options = SchedulingOptions(
            max_queued=num_queued, max_queued_per_tenant=num_queued, max_runs=num_admitted, first_growth_tokens=0
        )
        self.scheduler = Scheduler(options)
        self._names = map(str, itertools.count())
        self._admitted: deque[str] = deque()
        self._now = 0.0
        for number in range(_NUM_REPLICAS):
            self.scheduler.replica_changed(str(number), num_admitted * _TOKENS, healthy=True, now=0.0)
        for _ in range(num_admitted + num_queued):
            self.submit()

    def submit(self) -> None:
        """Submit a run, of one of 50 tenants with ten keys each; it is refused where the queue is full."""
        self._now += 0.001
        name = next(self._names)
        tenant, key = str(int(name) % 50), str(int(name) % 500)
        self._take(self.scheduler.submit(name, tenant=tenant, key=key, prompt_tokens=_TOKENS, now=self._now))

    def serve_one(self) -> None:
        """Bring the oldest run through a search and a second turn to its end, and submit another."""
        run = self._admitted.popleft()
        self._take(self.scheduler.turn_ended(run, _TOKENS, self._now))
        self._take(self.scheduler.turn_wanted(run, _TOKENS, self._now))
        self._take(self.scheduler.ended(run, self._now))
        self.submit()

    def tick(self) -> None:
        """Tell the time."""
        self._now += 1.0
        self.scheduler.tick(self._now)

    def _take(self, decisions: Sequence[Decision]) -> None:
        self._admitted.extend(decision.run for decision in decisions if isinstance(decision, Admit))


def cost_us(call: Callable[[], None], repeats: int) -> float:
    """CPU time of one call, in microseconds."""
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats * 1e6


def main() -> None:
    """Measure and print a table."""
    print("| admitted | queued | a run of two turns, µs | a refusal, µs | a tick, µs |\n|---|---|---|---|---|")
    for num_admitted, num_queued in ((100, 0), (1000, 1000), (1000, 10_000)):
        load = Load(num_admitted, num_queued)
        run_us = cost_us(load.serve_one, _REPEATS)
        refusal_us = cost_us(load.submit, _REPEATS)
        print(
            f"| {num_admitted:,} | {num_queued:,} | {run_us:.0f} | {refusal_us:.1f} | {cost_us(load.tick, 20):,.0f} |"
        )


if __name__ == "__main__":
    main()
