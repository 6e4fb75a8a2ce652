"""Costs of the search layer: a cached search next to a bare Redis GET, and the embedded index next to bm25s alone.

    python -m loadtests.search                     # starts a redis-server of its own
    python -m loadtests.search --passages 1000000  # the index part with a million passages

Both sides of each pair take turns within the same minute, so that a noisy machine hits both. Prints percentiles,
ratios, and memory.
"""

import argparse
import asyncio
import contextlib
import resource
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import bm25s  # type: ignore[import-untyped]

from loadtests.index import draw_texts, write_corpus
from searchr1.loop.types import Passage
from searchr1.redis_client import open_redis
from searchr1.retrieval.base import Found, NullObserver, SearchOutcome
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.cache.guarded import GuardedStore
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.redis import RedisStore
from searchr1.retrieval.config import CacheConfig
from searchr1.retrieval.index.bm25 import LocalIndex, build_index
from tests.support.redis_server import run_redis

UPSTREAM_S = 0.05
TOP_K = 3
Call = Callable[[], Awaitable[object]]


class Upstream:
    """A provider that takes ``takes_s`` and finds three passages of 500 characters."""

    takes_s = UPSTREAM_S

    async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
        """See ``Retriever.search``."""
        await asyncio.sleep(self.takes_s)
        passages = tuple(Passage(str(i), f'"{query} {i}"', "word " * 100, "https://example.org") for i in range(k))
        return Found(passages, provider="upstream")


async def timed_s(call: Call) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    await call()
    return time.perf_counter() - started


def percentile(samples_s: list[float], quantile: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(samples_s)[min(len(samples_s) - 1, int(quantile * len(samples_s)))]


async def measure_cache(url: str, rounds: int) -> None:
    """Hits, bare GETs, stale answers and misses, in turn."""
    client = open_redis(url)
    config = CacheConfig()
    aged_s = 0.0
    cached = CachedRetriever(
        Upstream(),
        GuardedStore(RedisStore(client)),
        provider="bench",
        config=config,
        observer=NullObserver(),
        clock=lambda: time.time() + aged_s,
    )
    try:
        await client.flushdb()
        await cached.search("hit", TOP_K, 10)
        [key] = [key async for key in client.scan_iter()]
        samples: dict[str, list[float]] = {"bare GET": [], "hit": [], "stale": [], "miss": []}
        for number in range(rounds):
            samples["bare GET"].append(await timed_s(lambda: client.get(key)))
            samples["hit"].append(await timed_s(lambda: cached.search("hit", TOP_K, 10)))
            if number % 20 == 0:
                query = f"query {number}"
                samples["miss"].append(await timed_s(lambda q=query: cached.search(q, TOP_K, 10)))  # type: ignore[misc]
                aged_s = config.soft_ttl_s + 1
                samples["stale"].append(await timed_s(lambda q=query: cached.search(q, TOP_K, 10)))  # type: ignore[misc]
                aged_s = 0.0
                await asyncio.sleep(UPSTREAM_S * 1.5)  # Its refresh must not run into the next round.
    finally:
        await cached.aclose()
        await client.aclose()
    print("| search | calls | p50 ms | p99 ms |\n|---|---|---|---|")
    for name, taken in samples.items():
        print(f"| {name} | {len(taken)} | {percentile(taken, 0.5):.2f} | {percentile(taken, 0.99):.2f} |")
    for quantile in (0.5, 0.99):
        ratio = percentile(samples["hit"], quantile) / percentile(samples["bare GET"], quantile)
        print(f"hit / bare GET, p{quantile * 100:g}: {ratio:.2f}")


async def measure_memory(searches: int) -> None:
    """Searches a second through a cache in this process's memory, one after the other, the provider's time left out."""

    class Instant(Upstream):
        takes_s = 0.0

    cached = CachedRetriever(Instant(), MemoryStore(), provider="bench", config=CacheConfig(), observer=NullObserver())
    print("| in memory | searches/s |\n|---|---|")
    for name, queries in (("miss", [f"query {n}" for n in range(searches)]), ("hit", ["query 0"] * searches)):
        started = time.perf_counter()
        for query in queries:
            await cached.search(query, TOP_K, 10)
        print(f"| {name} | {searches / (time.perf_counter() - started):,.0f} |")
    await cached.aclose()


async def measure_index(passages: int, num_queries: int, rounds: int) -> None:
    """Queries a second: bm25s alone in batches of 64 on one thread, and single searches through ``index.retriever()``.

    Both read the queries' terms; bm25s alone stops at row numbers, ``index.retriever()`` returns passages.
    """
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "index"
        write_corpus(corpus, passages)
        build_index(corpus, out, progress=False)
        index = LocalIndex.open(out)
        queries = list(draw_texts(num_queries, 3, 8, seed=2))
        ranker: bm25s.BM25 = index._ranker
        retriever = index.retriever()

        def alone() -> None:
            for start in range(0, num_queries, 64):
                terms = (index._tokenizer.terms(query) for query in queries[start : start + 64])
                known = [[term for term in found if term in ranker.vocab_dict] for found in terms]
                ranker.retrieve([found for found in known if found], k=TOP_K, show_progress=False)

        async def through() -> None:
            await asyncio.gather(*(retriever.search(query, TOP_K, 600) for query in queries))

        alone()
        await through()
        rates: dict[str, list[float]] = {"bm25s alone": [], "retriever": []}
        for _ in range(rounds):
            started = time.perf_counter()
            alone()
            rates["bm25s alone"].append(num_queries / (time.perf_counter() - started))
            rates["retriever"].append(num_queries / await timed_s(through))
        await retriever.aclose()
    pairs = zip(rates["retriever"], rates["bm25s alone"], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{passages:,} passages, {num_queries} queries at once, {rounds} rounds, peak {peak_mib:,.0f} MiB:")
    for name, found in rates.items():
        print(f"  {name}: {statistics.median(found):,.0f} queries/s")
    print(f"  retriever / bm25s alone: {ratio:.2f}")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url")
    parser.add_argument("--rounds", type=int, default=2000, help="cached searches")
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--no-cache", action="store_true", help="the index part alone")
    args = parser.parse_args()
    if not args.no_cache:
        with contextlib.ExitStack() as stack:
            url = args.redis_url or stack.enter_context(run_redis()).url
            asyncio.run(measure_cache(url, args.rounds))
        asyncio.run(measure_memory(args.rounds))
    asyncio.run(measure_index(args.passages, args.queries, rounds=5))


if __name__ == "__main__":
    main()
