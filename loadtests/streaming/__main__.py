"""What a streamed token costs the gateway: CPU time of its process, at a fixed number of streams of a paced engine.

    python -m loadtests.streaming --streams 64

starts a paced engine and the gateway before it, keeps the streams open for some rounds, and prints for chat and the
native API: CPU microseconds a token, writes a token, and the time to the first text beside the engine's own.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.processes import Server, free_port, running, searchr1
from loadtests.soak.process import Process
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT

_QUESTION = "Which currency is used in Mali?"
_ENGINE_READY = "/health"


@dataclass(frozen=True)
class Api:
    """One way to ask: a path, a body, and what marks the first text of an answer."""

    name: str
    path: str
    body: dict[str, Any]
    first: bytes


_MESSAGES = [{"role": "user", "content": _QUESTION}]
CHAT = Api("chat", "/v1/chat/completions", {"model": MODEL, "messages": _MESSAGES, "stream": True}, b'"reasoning":"')
NATIVE = Api("native", "/v1/research", {"question": _QUESTION, "stream": True}, b'"type":"think.delta"')


@dataclass
class Streamed:
    """What one client saw."""

    num_reads: int
    first_text_s: float
    whole_s: float
    ended_well: bool


async def stream(session: aiohttp.ClientSession, url: str, api: Api, options: dict[str, Any]) -> Streamed:
    """Ask once and read to the end, without parsing."""
    started, first_s, num_reads, tail = time.perf_counter(), None, 0, b""
    async with session.post(url + api.path, json={**api.body, **options}) as response:
        response.raise_for_status()
        async for data in response.content.iter_any():
            num_reads += 1
            if first_s is None and api.first in data:
                first_s = time.perf_counter() - started
            tail = (tail + data)[-4096:]
    ended_well = b"Bamako" in tail or b'"status":"completed"' in tail
    return Streamed(num_reads, first_s or float("nan"), time.perf_counter() - started, ended_well)


async def one_round(url: str, api: Api, num_streams: int, options: dict[str, Any]) -> list[Streamed]:
    """Open all streams at once and read them to their ends."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        return await asyncio.gather(*(stream(session, url, api, options) for _ in range(num_streams)))


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[tuple[Server, Server]]:
    """Start the engine and the gateway; yield both."""
    engine_port, port = free_port(), free_port()
    with ExitStack() as servers:
        engine = servers.enter_context(
            running(
                [
                    *(options.python, "-m", "loadtests.streaming.paced_engine", "--port", str(engine_port)),
                    *("--tokens-per-s", str(options.tokens_per_s), "--num-tokens", str(options.num_tokens)),
                ],
                engine_port,
                ready=_ENGINE_READY,
                log=logs / "engine.log",
            )
        )
        gateway = servers.enter_context(
            running(
                searchr1(
                    *("serve", "--engine-url", engine.url, "--model", MODEL, "--tokenizer", str(CHECKPOINT)),
                    # No run searches.
                    *("--retriever", "http://127.0.0.1:9/retrieve", "--port", str(port), *options.gateway_args.split()),
                ),
                port,
                ready="/readyz",
                log=logs / "gateway.log",
                environment={"SEARCHR1_MAX_CONCURRENT_RUNS": "100000", "SEARCHR1_MAX_CONNECTIONS": "100000"},
            )
        )
        yield engine, gateway


async def measure(options: argparse.Namespace, gateway: Server) -> None:
    """Print a row for each API and number of streams."""
    process, tokens = Process(gateway.pid), options.num_tokens
    print("| API | streams | tokens/s each | CPU µs/token | reads/token | first text ms | RSS MB | ended well |")
    print("|---|---|---|---|---|---|---|---|")
    for num_streams in options.streams:
        for api in (CHAT, NATIVE):
            await one_round(gateway.url, api, num_streams, options.body)
            costs, seen = [], list[Streamed]()
            for _ in range(options.rounds):
                before = process.cpu_s
                streams = await one_round(gateway.url, api, num_streams, options.body)
                costs.append(1e6 * (process.cpu_s - before) / (num_streams * tokens))
                seen += streams
            first_ms = 1000 * statistics.median(s.first_text_s for s in seen)
            reads = sum(s.num_reads for s in seen) / (len(seen) * tokens)
            well = sum(s.ended_well for s in seen) / len(seen)
            print(
                f"| {api.name} | {num_streams} | {options.tokens_per_s:g} | {statistics.median(costs):.0f} "
                f"({min(costs):.0f}–{max(costs):.0f}) | {reads:.2f} | {first_ms:.0f} "
                f"| {process.rss_bytes / 1e6:.0f} | {well:.0%} |",
                flush=True,
            )


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    import sys

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64])
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each stream")
    parser.add_argument("--num-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gateway-args", default="", help="more arguments of `searchr1 serve`")
    parser.add_argument("--body", type=json.loads, default={}, help="more fields of every request, as JSON")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs the engine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, stack(options, Path(logs)) as (_, gateway):
        asyncio.run(measure(options, gateway))


if __name__ == "__main__":
    main()
