"""What a stored run takes in Redis, from its start to its expiry.

    python -m loadtests.stored_runs --runs 200 --num-tokens 60 --searches 1

A gateway before a paced engine answers native streams and stores them in a Redis of this program's own, without cached
searches. Bytes are what Redis says that its data takes (``used_memory_dataset``), a run: while all are open, and after.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

import httpx

from loadtests.paced_stack import NO_LIMITS, gateway_before, paced_engine
from tests.support.redis_server import RedisServer, run_redis


async def ask(url: str, num_runs: int, redis: RedisServer) -> int:
    """Run so many streams at once; return what Redis' data took at its most."""
    peak, asking = 0, True

    async def one(client: httpx.AsyncClient) -> None:
        body = {"question": "Which currency is used in Mali?", "stream": True}
        answer = await client.post("/v1/research", json=body)
        assert "run.completed" in answer.text, answer.text[-500:]

    async def watch() -> None:
        nonlocal peak
        while asking:
            peak = max(peak, await asyncio.to_thread(dataset_bytes, redis))
            await asyncio.sleep(0.1)

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:
        watching = asyncio.create_task(watch())
        await asyncio.gather(*(one(client) for _ in range(num_runs)))
        asking = False
        await watching
    return peak


def dataset_bytes(redis: RedisServer) -> int:
    """Return what the data in Redis takes, in bytes."""
    with redis.client() as client:
        return int(client.info("memory")["used_memory_dataset"])


def main() -> None:
    """Print kB a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--num-tokens", type=int, default=60, help="Of each completion's reasoning.")
    parser.add_argument("--searches", type=int, default=1)
    parser.add_argument("--tokens-per-s", type=float, default=20.0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_redis() as redis,
        paced_engine(
            Path(folder),
            tokens_per_s=options.tokens_per_s,
            num_tokens=options.num_tokens,
            searches=options.searches,
        ) as engine,
        gateway_before(
            [engine.url],
            Path(folder),
            retriever=f"{engine.url}/retrieve",
            settings={**NO_LIMITS, "redis_url": redis.url, "cache": "0"},
        ) as gateway,
    ):
        before = dataset_bytes(redis)
        peak = asyncio.run(ask(gateway.url, options.runs, redis))
        after = dataset_bytes(redis)
    print(f"{options.runs} runs of {options.searches + 1} turns of {options.num_tokens} tokens, kB a run in Redis:")
    print(f"at the most, while they run: {(peak - before) / options.runs / 1000:.1f}")
    print(f"once they have ended: {(after - before) / options.runs / 1000:.1f}")


if __name__ == "__main__":
    main()
