"""Measures the BM25 index: building time and memory, then opening time, memory and query latency in a fresh process.

    .venv/bin/python loadtests/index.py --passages 1000000

The passages are synthetic: 20 to 60 words each, drawn from 200,000 words with Zipf frequencies. Queries are 3 to 8
words drawn the same way, so that they hold frequent words, the costly ones, as often as text does.

Seen on 2 cores, a million passages: built in 66 s with 2.1 GiB at the peak, 593 MiB on disk, opened in 5.7 s with
303 MiB of memory of its own, a query in 0.7 ms (p99 2.8 ms), 1,460 queries a second through ``index.retriever()``.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from searchr1.retrieval.base import Found
from searchr1.retrieval.index.bm25 import LocalIndex, build_index

WORDS = 200_000
TOP_K = 3
CHUNK = 10_000


def draw_texts(count: int, shortest: int, longest: int, seed: int) -> Iterator[str]:
    """Yield ``count`` texts of ``shortest`` to ``longest`` words, the same ones for the same seed."""
    draw = np.random.default_rng(seed)
    weights = 1 / (np.arange(WORDS) + 10)
    cumulative = np.cumsum(weights / weights.sum())
    for start in range(0, count, CHUNK):
        lengths = draw.integers(shortest, longest + 1, size=min(CHUNK, count - start))
        words = np.searchsorted(cumulative, draw.random(lengths.sum())).tolist()
        ends = np.cumsum(lengths).tolist()
        for length, end in zip(lengths.tolist(), ends, strict=True):
            yield " ".join(f"w{word}" for word in words[end - length : end])


def write_corpus(path: Path, passages: int) -> None:
    """Write the synthetic corpus."""
    with path.open("w", encoding="utf-8") as file:
        for i, text in enumerate(draw_texts(passages, 20, 60, seed=1)):
            file.write(json.dumps({"id": str(i), "contents": f'"Passage {i}"\n{text}'}) + "\n")


def report(name: str, value: float, unit: str) -> None:
    """Print one line of the result."""
    print(f"{name:<42}{value:>12,.2f} {unit}", flush=True)


def peak_mib() -> float:
    """This process's peak resident memory, file-backed pages included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def anonymous_mib() -> float:
    """This process's resident memory without file-backed pages, which the kernel may drop at any time."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return float(fields["RssAnon"].split()[0]) / 1024


def measure_build(corpus: Path, out: Path) -> None:
    """Build the index and report."""
    start = time.perf_counter()
    info = build_index(corpus, out, progress=False)
    report("build", time.perf_counter() - start, "s")
    report("build, peak memory", peak_mib(), "MiB")
    report("passages", info.passages, "")
    report("tokens", info.tokens, "")
    report("distinct terms", info.terms, "")
    report("index on disk", sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 2**20, "MiB")


def measure_queries(out: Path, queries: int) -> None:
    """Open the index and report latencies."""
    start = time.perf_counter()
    index = LocalIndex.open(out)
    report("open, kernels compiled", time.perf_counter() - start, "s")
    report("open, anonymous memory", anonymous_mib(), "MiB")
    texts = list(draw_texts(queries, 3, 8, seed=2))
    latencies_ms = []
    for text in texts:
        start = time.perf_counter()
        index.search_batch([text], TOP_K)
        latencies_ms.append((time.perf_counter() - start) * 1000)
    for percent in (50, 95, 99):
        report(f"one query at a time, p{percent}", statistics.quantiles(latencies_ms, n=100)[percent - 1], "ms")
    start = time.perf_counter()
    asyncio.run(search_all(index, texts))
    report("retriever, all at once", queries / (time.perf_counter() - start), "queries/s")
    report("after the queries, anonymous memory", anonymous_mib(), "MiB")
    report("after the queries, peak memory", peak_mib(), "MiB")


async def search_all(index: LocalIndex, texts: list[str]) -> None:
    """Run every query concurrently."""
    retriever = index.retriever()
    outcomes = await asyncio.gather(*(retriever.search(text, TOP_K, 600) for text in texts))
    await retriever.aclose()
    if not all(isinstance(outcome, Found) for outcome in outcomes):
        raise SystemExit("a search failed")


def in_fresh_process(target: Callable[..., None], *args: object) -> None:
    """Run ``target`` where its memory is its own."""
    process = multiprocessing.get_context("spawn").Process(target=target, args=args)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description="Measure the BM25 index on a synthetic corpus.")
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} CPUs, load {load:.1f} before", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "index"
        write_corpus(corpus, options.passages)
        report("corpus", corpus.stat().st_size / 2**20, "MiB")
        in_fresh_process(measure_build, corpus, out)
        in_fresh_process(measure_queries, out, options.queries)


if __name__ == "__main__":
    main()
