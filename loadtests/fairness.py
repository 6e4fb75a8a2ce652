"""What a polite key waits beside a greedy one.

    python -m loadtests.fairness
    python -m loadtests.fairness --vllm

starts a gateway with two keys before a paced engine, or before a real vLLM of the demo's checkpoint. One key asks one
question after the other, alone and then beside the other key, whose clients want many runs in the background at all
times: those that are refused ask again. Prints the polite key's latencies, and those to a run's first text, its wait.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from loadtests.gateway_metrics import total
from loadtests.paced_stack import demo_vllm, gateway_before, paced_engine
from loadtests.simulator.outcome import quantile
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT

_GREEDY, _POLITE = "key-of-the-greedy-one", "key-of-the-polite-one"
_SERVED = "served"
_QUESTION = "Which currency is used in Mali?"
_LOOK_S = 0.25
_REFUSED_S = 2.0
_FULL_WITHIN_S = 30.0


@dataclass(frozen=True)
class Asked:
    """One polite question, in seconds."""

    latency_s: float
    first_text_s: float


async def ask(http: aiohttp.ClientSession, url: str) -> Asked:
    """Ask politely, and read to the end."""
    began, first_s = time.perf_counter(), 0.0
    body = {"question": _QUESTION, "stream": True, "store": False}
    headers = {"Authorization": f"Bearer {_POLITE}"}
    async with http.post(f"{url}/v1/research", json=body, headers=headers) as response:
        response.raise_for_status()
        async for line in response.content:
            if not first_s and b"think.delta" in line:
                first_s = time.perf_counter() - began
            if b"run.failed" in line:
                raise AssertionError(line)
    return Asked(time.perf_counter() - began, first_s)


@asynccontextmanager
async def greedy(http: aiohttp.ClientSession, url: str, num_runs: int) -> AsyncIterator[None]:
    """Keep so many runs in the background, each started anew once it has ended, while the block runs."""
    headers = {"Authorization": f"Bearer {_GREEDY}"}

    async def one() -> None:
        while True:
            body = {"model": _SERVED, "input": _QUESTION, "background": True}
            async with http.post(f"{url}/v1/responses", json=body, headers=headers) as response:
                if response.status == 503:  # One key may have only so many places in the queue.
                    await asyncio.sleep(_REFUSED_S)
                    continue
                response.raise_for_status()
                started = await response.json()
            path = f"{url}/v1/responses/{started['id']}?stream=true"
            async with http.get(path, headers=headers) as response:
                await response.read()

    runs = [asyncio.create_task(one()) for _ in range(num_runs)]
    try:
        yield
    finally:
        failed = [run.exception() for run in runs if run.done()]
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)
        if failed:
            raise AssertionError(f"{len(failed)} greedy clients failed") from failed[0]


async def measure(url: str, options: argparse.Namespace) -> None:
    """Print both rows."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await ask(http, url)
        alone = [await ask(http, url) for _ in range(options.polite)]
        async with greedy(http, url, options.greedy):
            await _until_full(http, url, options)
            beside = [await ask(http, url) for _ in range(options.polite)]
    print("| polite key | p50, s | p95, s | p95 to the first text, s | p95 after it, s |")
    print("|---|---|---|---|---|")
    print(f"| alone | {_cells(alone)} |")
    print(f"| beside {options.greedy} runs of another key | {_cells(beside)} |")
    ratio = _p(0.95, [one.latency_s for one in beside]) / _p(0.95, [one.latency_s for one in alone])
    print(f"\np95 beside / alone: {ratio:.2f}")


async def _until_full(http: aiohttp.ClientSession, url: str, options: argparse.Namespace) -> None:
    """Wait until all slots are taken and many wait. Raises ``TimeoutError`` where that does not come."""
    queued, give_up_at = 0.0, time.monotonic() + _FULL_WITHIN_S
    while time.monotonic() < give_up_at:
        async with http.get(f"{url}/metrics") as response:
            queued = total(await response.text(), "searchr1_runs_queued")
        if queued >= min(options.greedy - options.slots, 2 * options.slots):
            return
        await asyncio.sleep(_LOOK_S)
    raise TimeoutError(f"only {queued:g} runs are queued")


def _cells(asked: list[Asked]) -> str:
    latencies, firsts = [one.latency_s for one in asked], [one.first_text_s for one in asked]
    rests = [one.latency_s - one.first_text_s for one in asked]
    return f"{_p(0.5, latencies):.2f} | {_p(0.95, latencies):.2f} | {_p(0.95, firsts):.2f} | {_p(0.95, rests):.2f}"


def _p(share: float, values: list[float]) -> float:
    return quantile(sorted(values), share)


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[str]:
    """Start engine, search and gateway; yield the gateway's address."""
    settings = {"served_name": _SERVED, "api_keys": f"{_GREEDY},{_POLITE}", "cache": "false"}
    settings |= {"max_concurrent_runs": str(options.slots), "max_connections": "10000", "max_deadline_s": "600"}
    settings["deadline_s"] = "600"
    with ExitStack() as servers:
        paced = servers.enter_context(
            paced_engine(logs, tokens_per_s=20, num_tokens=32, searches=1, search_s=0.5, spread=0.5)
        )
        engine, model = (servers.enter_context(demo_vllm(logs)), str(CHECKPOINT)) if options.vllm else (paced, MODEL)
        search = f"{paced.url}/retrieve"
        gateway = gateway_before([engine.url], logs, model=model, retriever=search, settings=settings)
        yield servers.enter_context(gateway).url


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", action="store_true", help="a real vLLM of the demo's checkpoint, not a paced engine")
    parser.add_argument("--greedy", type=int, default=300, help="runs of the greedy key, at all times")
    parser.add_argument("--polite", type=int, default=20, help="questions of the polite key")
    parser.add_argument("--slots", type=int, default=32, help="runs at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, stack(options, Path(logs)) as url:
        asyncio.run(measure(url, options))


if __name__ == "__main__":
    main()
