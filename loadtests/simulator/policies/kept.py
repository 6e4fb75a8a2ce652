"""A policy inside the engine, after CacheTTL (Continuum, arXiv 2511.02230): KV caches are pinned while a tool runs.

A run whose turn ends keeps its blocks for a time to live; past it they may be reused. Requests are served in the order
in which their runs came, whatever their turn. The time to live is the one that gains most by what was seen so far:
``P(latency ≤ ttl)`` times what a run loses without its cache, which is the time to compute it again and a wait as long
as first turns have, less ``E[min(latency, ttl)]`` times the share of the cache that it holds, for each run that waits.
This follows the paper's reasoning, not its code, and needs a changed engine; none of the other policies does.
"""

from bisect import insort
from dataclasses import dataclass, field

from loadtests.simulator.policies.plain import Plain
from loadtests.simulator.rates import EnginePolicy
from loadtests.simulator.simulation import SimulatedRun

_FIRST_TTL_S = 2.0
_LEARN_EVERY = 50


@dataclass
class Kept(Plain):
    """Pins with a time to live, and runs first come, first served."""

    name: str = "CacheTTL-like, in the engine"
    engine_policy: EnginePolicy = "priority"
    ttl_s: float = _FIRST_TTL_S
    left_at: dict[str, float] = field(default_factory=dict)
    latencies_s: list[float] = field(default_factory=list)
    waits_s: float = 0.0

    def priority(self, run: SimulatedRun) -> int:
        """Return the time at which the run came, in milliseconds."""
        return int(run.came_at * 1000)

    def keeps(self, run: SimulatedRun) -> bool:
        """See ``Policy``."""
        return self.ttl_s > 0

    def turn_ended(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        self.left_at[run.name] = now
        if run.turn == 1:
            self.waits_s += 0.05 * (run.first_token_at - run.admitted_at - self.waits_s)
        if self.ttl_s > 0:
            self.simulation.after(self.ttl_s, lambda: self._expire(run, now))

    def wants_turn(self, run: SimulatedRun, now: float) -> None:
        """See ``Policy``."""
        insort(self.latencies_s, now - self.left_at.pop(run.name))
        if len(self.latencies_s) % _LEARN_EVERY == 0:
            self._learn(run)
        super().wants_turn(run, now)

    def _expire(self, run: SimulatedRun, left_at: float) -> None:
        if self.left_at.get(run.name) == left_at:
            self.simulation.replicas[run.replica].unpin(run.name, self.simulation.now)
            self.simulation.watch(run.replica)

    def _learn(self, run: SimulatedRun) -> None:
        replica, params = self.simulation.replicas[run.replica], self.simulation.params
        lost_s = run.footprint * params.prefill_token_s + self.waits_s
        price = run.footprint / params.capacity_tokens * max(1, replica.num_waiting)
        latencies = self.latencies_s
        best, self.ttl_s, below_s = 0.0, 0.0, 0.0
        for number, ttl_s in enumerate(latencies, 1):
            below_s += ttl_s
            held_s = (below_s + ttl_s * (len(latencies) - number)) / len(latencies)
            gain = number / len(latencies) * lost_s - held_s * price
            if gain > best:
                best, self.ttl_s = gain, ttl_s
