"""What a streamed token costs the gateway: CPU time of its process, at a fixed number of streams of a paced engine.

    python -m loadtests.streaming --streams 64
    python -m loadtests.streaming --streams 64 --litellm /path/to/bin/litellm

starts a paced engine and the gateway before it, and with ``--litellm`` that proxy before the same engine. All are asked
in turns, round by round, so that a noisy machine hits all. Prints CPU microseconds a token, reads a token, the time to
the first text, and the memory that a stream takes.
"""

import argparse
import asyncio
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from loadtests.paced_stack import gateway_before, paced_engine
from loadtests.processes import Server, free_port, running
from loadtests.soak.process import Process
from loadtests.streaming.paced_engine import MODEL

_QUESTION = "Which currency is used in Mali?"
_MESSAGES = [{"role": "user", "content": _QUESTION}]
_CHAT_BODY = {"model": MODEL, "messages": _MESSAGES, "stream": True}
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
    """Of the server's process, for each token of a round."""
    stream_kb: list[float] = field(default_factory=list)
    """Memory that the server's process took while the streams were open, for each of them."""
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
    process = Process(side.server.pid)
    cpu_before, rss_before = process.cpu_s, process.rss_bytes
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        streaming = [asyncio.create_task(stream(session, side)) for _ in range(num_streams)]
        rss = rss_before
        while not all(task.done() for task in streaming):
            await asyncio.sleep(0.1)
            rss = max(rss, process.rss_bytes)
        seen.streams += [task.result() for task in streaming]
    seen.cpu_us.append(1e6 * (process.cpu_s - cpu_before) / (num_streams * num_tokens))
    seen.stream_kb.append((rss - rss_before) / 1000 / num_streams)
    await asyncio.sleep(_QUIET_S)


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[list[Side]]:
    """Start the servers; yield the sides."""
    with ExitStack() as servers:
        pace = {"tokens_per_s": options.tokens_per_s, "num_tokens": options.num_tokens}
        engine = servers.enter_context(paced_engine(logs, **pace))
        gateway = servers.enter_context(gateway_before([engine.url], logs))
        native = {"question": _QUESTION, "stream": True}
        each = {"stream_interval_ms": 0}
        first, last = b'"reasoning":"', b"[DONE]"
        sides = [
            Side("chat", gateway, "/v1/chat/completions", _CHAT_BODY, first, last),
            Side("chat, each token", gateway, "/v1/chat/completions", {**_CHAT_BODY, **each}, first, last),
            Side("native", gateway, "/v1/research", native, b'"type":"think.delta"', b"answer.completed"),
        ]
        if options.litellm:
            proxy = servers.enter_context(_litellm(options.litellm, engine, logs))
            sides.append(Side("LiteLLM's proxy", proxy, "/v1/chat/completions", _CHAT_BODY, b'"content":"', b"[DONE]"))
        yield sides


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
        "| side | streams | tokens/s each | CPU µs/token | of chat's | reads/token | first text, ms | kB/stream "
        "| ended well |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for num_streams in options.streams:
        seen = {side.name: Seen() for side in sides}
        for number in range(options.rounds + 1):
            for side in sides:
                warm = seen[side.name] if number else Seen()
                await one_round(side, warm, num_streams, options.num_tokens)
        for name, rows in seen.items():
            ratio = statistics.median(a / b for a, b in zip(rows.cpu_us, seen["chat"].cpu_us, strict=True))
            print(f"| {name} | {num_streams} | {options.tokens_per_s:g} | {_row(rows, ratio, options)} |", flush=True)


def _row(seen: Seen, ratio: float, options: argparse.Namespace) -> str:
    cpu, streams = seen.cpu_us, seen.streams
    reads = sum(s.num_reads for s in streams) / (len(streams) * options.num_tokens)
    first_ms = 1000 * statistics.median(s.first_text_s for s in streams)
    ended = sum(s.ended_well for s in streams) / len(streams)
    return (
        f"{statistics.median(cpu):.0f} ({min(cpu):.0f}–{max(cpu):.0f}) | {ratio:.1f} | {reads:.2f} | {first_ms:.0f} "
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, stack(options, Path(logs)) as sides:
        asyncio.run(measure(options, sides))


if __name__ == "__main__":
    main()
