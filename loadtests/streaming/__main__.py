"""What a streamed token costs the gateway: CPU time of its process, at a fixed number of streams of a paced engine.

    python -m loadtests.streaming --streams 64
    python -m loadtests.streaming --streams 64 --litellm /path/to/bin/litellm
    python -m loadtests.streaming --streams 64 --tokens-per-s 400 --workers 1 2

starts a paced engine and the gateway before it, and with ``--litellm`` that proxy before the same engine. With
``--workers`` it starts gateways of so many workers each instead, with one Redis, and asks them for chat alone. All are
asked in turns, round by round, so that a noisy machine hits all. Prints CPU microseconds a token, of all processes of a
server, the tokens a second of all streams together, reads a token, the time to the first text, and the memory that a
stream takes.
"""

import argparse
import asyncio
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.processes import Server, free_port, running, searchr1
from loadtests.soak.process import Process
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT
from tests.support.redis_server import run_redis

_QUESTION = "Which currency is used in Mali?"
_MESSAGES = [{"role": "user", "content": _QUESTION}]
_CHAT_BODY = {"model": MODEL, "messages": _MESSAGES, "stream": True}
_CHAT_FIRST, _CHAT_LAST = b'"reasoning":"', b"[DONE]"
_NO_LIMITS = {"SEARCHR1_MAX_CONCURRENT_RUNS": "100000", "SEARCHR1_MAX_CONNECTIONS": "100000"}
_NO_KEY = "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"
_QUIET_S = 1.0


@dataclass(frozen=True)
class Side:
    """One way to ask: a server, a path, a body, and what marks the first text of an answer and its good end."""

    name: str
    server: Server
    path: str
    body: dict[str, Any]
    first: bytes
    last: bytes


@dataclass(frozen=True)
class Streamed:
    """What one client saw."""

    num_reads: int
    first_text_s: float
    ended_well: bool


@dataclass
class Seen:
    """What was seen of one side, round by round."""

    cpu_us: list[float] = field(default_factory=list)
    """Of the server's processes, for each token of a round."""
    tokens_per_s: list[float] = field(default_factory=list)
    """Of all streams together."""
    stream_kb: list[float] = field(default_factory=list)
    """Memory that the server's processes took while the streams were open, for each of them."""
    streams: list[Streamed] = field(default_factory=list)


async def stream(session: aiohttp.ClientSession, side: Side) -> Streamed:
    """Ask once and read to the end, without parsing."""
    started, first_s, num_reads, tail = time.perf_counter(), math.nan, 0, b""
    async with session.post(side.server.url + side.path, json=side.body) as response:
        response.raise_for_status()
        async for data in response.content.iter_any():
            num_reads += 1
            if math.isnan(first_s) and side.first in data:
                first_s = time.perf_counter() - started
            tail = (tail + data)[-8192:]
    return Streamed(num_reads, first_s, side.last in tail)


async def one_round(side: Side, seen: Seen, num_streams: int, num_tokens: int) -> None:
    """Open all streams at once and read them to their ends."""
    processes = Process(side.server.pid).family
    cpu_before, rss_before = _cpu_s(processes), _rss_bytes(processes)
    started = time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        streaming = [asyncio.create_task(stream(session, side)) for _ in range(num_streams)]
        rss = rss_before
        while not all(task.done() for task in streaming):
            await asyncio.sleep(0.1)
            rss = max(rss, _rss_bytes(processes))
        seen.tokens_per_s.append(num_streams * num_tokens / (time.perf_counter() - started))
        seen.streams += [task.result() for task in streaming]
    seen.cpu_us.append(1e6 * (_cpu_s(processes) - cpu_before) / (num_streams * num_tokens))
    seen.stream_kb.append((rss - rss_before) / 1000 / num_streams)
    await asyncio.sleep(_QUIET_S)


def _cpu_s(processes: Sequence[Process]) -> float:
    return sum(process.cpu_s for process in processes)


def _rss_bytes(processes: Sequence[Process]) -> int:
    return sum(process.rss_bytes for process in processes)


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[list[Side]]:
    """Start the servers; yield the sides."""
    engine_port = free_port()
    with ExitStack() as servers:
        command = [
            *(sys.executable, "-m", "loadtests.streaming.paced_engine", "--port", str(engine_port)),
            *("--tokens-per-s", str(options.tokens_per_s), "--num-tokens", str(options.num_tokens)),
        ]
        engine = servers.enter_context(running(command, engine_port, ready="/health", log=logs / "engine.log"))
        if options.workers:
            redis = servers.enter_context(run_redis())
            gateways = {
                number: servers.enter_context(_gateway(engine, logs, number, redis.url)) for number in options.workers
            }
            yield [
                Side(f"chat, workers: {number}", gateway, "/v1/chat/completions", _CHAT_BODY, _CHAT_FIRST, _CHAT_LAST)
                for number, gateway in gateways.items()
            ]
            return
        gateway = servers.enter_context(_gateway(engine, logs))
        native = {"question": _QUESTION, "stream": True}
        each = {"stream_interval_ms": 0}
        sides = [
            Side("chat", gateway, "/v1/chat/completions", _CHAT_BODY, _CHAT_FIRST, _CHAT_LAST),
            Side("chat, each token", gateway, "/v1/chat/completions", {**_CHAT_BODY, **each}, _CHAT_FIRST, _CHAT_LAST),
            Side("native", gateway, "/v1/research", native, b'"type":"think.delta"', b"answer.completed"),
        ]
        if options.litellm:
            proxy = servers.enter_context(_litellm(options.litellm, engine, logs))
            sides.append(Side("LiteLLM's proxy", proxy, "/v1/chat/completions", _CHAT_BODY, b'"content":"', b"[DONE]"))
        yield sides


def _gateway(engine: Server, logs: Path, num_workers: int = 1, redis_url: str | None = None) -> Any:
    port = free_port()
    command = searchr1(
        *("serve", "--engine-url", engine.url, "--model", MODEL, "--tokenizer", str(CHECKPOINT)),
        # No run searches.
        *("--retriever", "http://127.0.0.1:9/retrieve", "--port", str(port)),
    )
    environment = {**_NO_LIMITS, "SEARCHR1_WORKERS": str(num_workers)}
    if redis_url is not None:
        environment["SEARCHR1_REDIS_URL"] = redis_url
    return running(command, port, ready="/readyz", log=logs / f"gateway-{num_workers}.log", environment=environment)


def _litellm(program: str, engine: Server, logs: Path) -> Any:
    port, config = free_port(), logs / "litellm.json"
    served = {"model": f"hosted_vllm/{MODEL}", "api_base": f"{engine.url}/v1", "api_key": "none"}
    # JSON is YAML.
    config.write_text(json.dumps({"model_list": [{"model_name": MODEL, "litellm_params": served}]}), "utf-8")
    command = [program, "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", _NO_KEY: "true"}
    return running(command, port, ready="/health/liveliness", log=logs / "litellm.log", environment=quiet)


async def measure(options: argparse.Namespace, sides: Sequence[Side]) -> None:
    """Print a row for each side and number of streams."""
    print(
        "| side | streams | tokens/s each | CPU µs/token | of the first's | tokens/s in all "
        "| reads/token | first text, ms | kB/stream "
        "| ended well |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for num_streams in options.streams:
        seen = {side.name: Seen() for side in sides}
        for number in range(options.rounds + 1):
            for side in sides:
                warm = seen[side.name] if number else Seen()
                await one_round(side, warm, num_streams, options.num_tokens)
        for name, rows in seen.items():
            ratio = statistics.median(a / b for a, b in zip(rows.cpu_us, seen[sides[0].name].cpu_us, strict=True))
            print(f"| {name} | {num_streams} | {options.tokens_per_s:g} | {_row(rows, ratio, options)} |", flush=True)


def _row(seen: Seen, ratio: float, options: argparse.Namespace) -> str:
    cpu, streams = seen.cpu_us, seen.streams
    reads = sum(s.num_reads for s in streams) / (len(streams) * options.num_tokens)
    first_ms = 1000 * statistics.median(s.first_text_s for s in streams)
    ended = sum(s.ended_well for s in streams) / len(streams)
    return (
        f"{statistics.median(cpu):.0f} ({min(cpu):.0f}–{max(cpu):.0f}) | {ratio:.1f} "
        f"| {statistics.median(seen.tokens_per_s):.0f} | {reads:.2f} | {first_ms:.0f} "
        f"| {max(seen.stream_kb):.0f} | {ended:.0%}"
    )


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64])
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each stream")
    parser.add_argument("--num-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy, installed elsewhere")
    parser.add_argument("--workers", type=int, nargs="+", help="measure gateways of so many workers, by chat alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, stack(options, Path(logs)) as sides:
        asyncio.run(measure(options, sides))


if __name__ == "__main__":
    main()
