"""When runs come, and how long their searches take."""

import math
import random
from collections.abc import Callable

Arrivals = Callable[[int, random.Random], list[float]]


def at_once() -> Arrivals:
    """All runs at time 0, as a rollout or an evaluation asks."""
    return lambda num_runs, rng: [0.0] * num_runs


def poisson(rate_per_s: float) -> Arrivals:
    """Runs that come independently of each other."""

    def draw(num_runs: int, rng: random.Random) -> list[float]:
        now, times = 0.0, []
        for _ in range(num_runs):
            now += rng.expovariate(rate_per_s)
            times.append(now)
        return times

    return draw


def bursty(rate_per_s: float, *, factor: float = 5.0, calm_s: float = 40.0, burst_s: float = 10.0) -> Arrivals:
    """Runs at ``rate_per_s`` on average: ``factor`` times as many a second in bursts as in the calm between them."""
    calm_rate = rate_per_s * (calm_s + burst_s) / (calm_s + factor * burst_s)

    def draw(num_runs: int, rng: random.Random) -> list[float]:
        now = 0.0
        times: list[float] = []
        in_burst, changes_at = False, rng.expovariate(1 / calm_s)
        while len(times) < num_runs:
            gap = rng.expovariate(calm_rate * (factor if in_burst else 1.0))
            if now + gap < changes_at:
                now += gap
                times.append(now)
            else:
                now, in_burst = changes_at, not in_burst
                changes_at = now + rng.expovariate(1 / (burst_s if in_burst else calm_s))
        return times

    return draw


class Searches:
    """Search latencies, lognormal with a heavy tail, behind a cache that answers a repeated query at once."""

    def __init__(
        self, rng: random.Random, *, median_s: float = 0.8, sigma: float = 0.7, cached_s: float | None = 0.002
    ) -> None:
        """With the defaults nine in ten take 0.25–2.5 s and one in a hundred over 4 s. ``cached_s`` None: no cache."""
        self._rng = rng
        self._mu, self._sigma = math.log(median_s), sigma
        self._cached_s = cached_s
        self._answered_at: dict[str, float] = {}
        self.num_cached = 0

    def latency_s(self, query: str, now: float) -> float:
        """Return how long a search takes that is sent now. One that is under way already is shared."""
        latency_s = min(max(self._rng.lognormvariate(self._mu, self._sigma), 0.1), 20.0)
        if self._cached_s is None or not query:
            return latency_s
        answered_at = self._answered_at.setdefault(query, now + latency_s)
        if answered_at == now + latency_s:
            return latency_s
        self.num_cached += 1
        return max(self._cached_s, answered_at - now)
