"""A process of its own that searches through the shared cache: ``python -m tests.retrieval.cache.replica URL QUERY N``.

Prints ``ready``, waits for a line, searches ``N`` times at once, and prints its provider's calls and how many searches
found something.
"""

import asyncio
import sys
import time

from searchr1.redis_client import open_redis
from searchr1.retrieval.base import Found
from searchr1.retrieval.cache.redis import RedisStore
from tests.retrieval.cache.fakes import Provider, make


async def main(url: str, query: str, searches: int) -> None:
    """Search ``query``, that many times at once."""
    client = open_redis(url)
    await client.ping()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)
    cache = make(RedisStore(client), provider=Provider(takes_s=1.0), timeout_s=2.0)
    cache.clock.now_s = time.time()
    outcomes = await asyncio.gather(*(cache.search(query, deadline_s=20) for _ in range(searches)))
    await cache.retriever.aclose()
    await client.aclose()
    sys.stdout.write(f"{cache.provider.calls} {sum(isinstance(outcome, Found) for outcome in outcomes)}\n")


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
