"""What a refusal costs a full gateway: its time to the client, and its CPU beside a run's.

    python -m loadtests.shedding

starts two gateways, each before a paced engine. One is full: its seats and its queue are taken by streams that hardly
move. The other has room, and its engine is quick. Prints the latency of refusals by the full one, and the CPU time of
one refusal beside that of one short run of the other.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from loadtests.processes import Server, free_port, running, searchr1
from loadtests.soak.process import Process
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT

_SEATS, _QUEUED = 8, 8
_BODY = {"question": "Which currency is used in Mali?", "stream": True}
_NUM_TOKENS = 64
_WARM_UP = 20


@dataclass(frozen=True)
class Cost:
    """What requests cost, one after another."""

    latencies_s: list[float]
    cpu_us: float
    """Of the gateway's process, for each request."""
    statuses: frozenset[int]


@contextmanager
def gateway(tokens_per_s: float, logs: Path) -> Iterator[Server]:
    """Start a paced engine and a gateway of few seats before it."""
    engine_port, port = free_port(), free_port()
    engine_command = [
        *(sys.executable, "-m", "loadtests.streaming.paced_engine", "--port", str(engine_port)),
        *("--tokens-per-s", str(tokens_per_s), "--num-tokens", str(_NUM_TOKENS)),
    ]
    with ExitStack() as servers:
        engine = servers.enter_context(
            running(engine_command, engine_port, ready="/health", log=logs / f"engine-{engine_port}.log")
        )
        command = searchr1(
            *("serve", "--engine-url", engine.url, "--model", MODEL, "--tokenizer", str(CHECKPOINT)),
            # No run searches.
            *("--retriever", "http://127.0.0.1:9/retrieve", "--port", str(port)),
        )
        few = {"SEARCHR1_MAX_CONCURRENT_RUNS": str(_SEATS), "SEARCHR1_MAX_QUEUED_RUNS": str(_QUEUED)}
        yield servers.enter_context(
            running(command, port, ready="/readyz", log=logs / f"gateway-{port}.log", environment=few)
        )


async def ask(session: aiohttp.ClientSession, server: Server) -> tuple[int, float]:
    """Ask once and read all of the answer; return its status and the seconds that it took."""
    started = time.perf_counter()
    async with session.post(f"{server.url}/v1/research", json=_BODY) as response:
        await response.read()
        return response.status, time.perf_counter() - started


async def cost(server: Server, num_requests: int) -> Cost:
    """Send requests one after another, over one connection."""
    process = Process(server.pid)
    async with aiohttp.ClientSession() as session:
        for _ in range(_WARM_UP):
            await ask(session, server)
        cpu_before = process.cpu_s
        answers = [await ask(session, server) for _ in range(num_requests)]
    cpu_us = 1e6 * (process.cpu_s - cpu_before) / num_requests
    return Cost([seconds for _, seconds in answers], cpu_us, frozenset(status for status, _ in answers))


async def measure(full: Server, free: Server, num_refusals: int, num_runs: int) -> tuple[Cost, Cost]:
    """Fill a gateway, and return the cost of its refusals and of another's runs."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, AsyncExitStack() as held:
        for _ in range(_SEATS + _QUEUED):
            response = await held.enter_async_context(session.post(f"{full.url}/v1/research", json=_BODY))
            response.raise_for_status()
        refusals = await cost(full, num_refusals)
    return refusals, await cost(free, num_runs)


def report(refusals: Cost, runs: Cost) -> str:
    """Return the table."""
    assert refusals.statuses == {503}, refusals.statuses
    assert runs.statuses == {200}, runs.statuses
    ratio = refusals.cpu_us / runs.cpu_us
    return "\n".join(
        [
            "|  | p50 ms | p99 ms | CPU µs | of a run's |",
            "|---|---|---|---|---|",
            f"| a refusal | {_times_ms(refusals.latencies_s)} | {refusals.cpu_us:.0f} | 1/{1 / ratio:.1f} |",
            f"| a run of {_NUM_TOKENS} tokens | {_times_ms(runs.latencies_s)} | {runs.cpu_us:.0f} | 1 |",
        ]
    )


def _times_ms(seconds: Sequence[float]) -> str:
    p99 = statistics.quantiles(seconds, n=100)[98]
    return f"{1000 * statistics.median(seconds):.1f} | {1000 * p99:.1f}"


def main() -> None:
    """Start the servers, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--refusals", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        with gateway(0.2, logs) as full, gateway(400.0, logs) as free:
            print(report(*asyncio.run(measure(full, free, options.refusals, options.runs))))


if __name__ == "__main__":
    main()
