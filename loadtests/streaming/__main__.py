"""What a streamed token costs the gateway: CPU time of its process, at a fixed number of streams of a paced engine.

    python -m loadtests.streaming --streams 64
    python -m loadtests.streaming --streams 64 --litellm .venv-compared/bin/litellm
    python -m loadtests.streaming --streams 64 --tokens-per-s 400 --workers 1 2

starts a paced engine and the gateway before it, and with ``--litellm`` and ``--agentic`` those programs before the same
engine. With ``--workers`` it starts gateways of so many workers each instead, with one Redis, and asks them for chat
alone. All are asked in turns, round by round, so that a noisy machine hits all. Prints CPU microseconds a token, of all
processes of a server, the tokens a second of all streams together, reads a token, and the time to the first text. What
a stream takes of memory is another command's: ``streaming.held``.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.paced_stack import paced_engine
from loadtests.processes import Server
from loadtests.soak.process import Process
from loadtests.streaming.sides import Streamed, Way, programs, stream, workers
from tests.support.redis_server import run_redis

_QUIET_S = 1.0


@dataclass
class Seen:
    """What was seen of one way to ask, round by round."""

    cpu_us: list[float] = field(default_factory=list)
    """Of the server's processes, for each token of a round."""
    tokens_per_s: list[float] = field(default_factory=list)
    """Of all streams together."""
    streams: list[Streamed] = field(default_factory=list)


@dataclass(frozen=True)
class Side:
    """A way to ask a running server."""

    server: Server
    way: Way


async def one_round(side: Side, seen: Seen, num_streams: int, num_tokens: int) -> None:
    """Open all streams at once and read them to their ends."""
    processes = Process(side.server.pid).family
    cpu_before, started = _cpu_s(processes), time.perf_counter()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        asked = (stream(session, side.server.url, side.way) for _ in range(num_streams))
        seen.streams += await asyncio.gather(*asked)
    num_in_all = num_streams * num_tokens
    seen.tokens_per_s.append(num_in_all / (time.perf_counter() - started))
    seen.cpu_us.append(1e6 * (_cpu_s(processes) - cpu_before) / num_in_all)
    await asyncio.sleep(_QUIET_S)


def _cpu_s(processes: Sequence[Process]) -> float:
    return sum(process.cpu_s for process in processes)


@contextmanager
def stack(options: argparse.Namespace, logs: Path) -> Iterator[list[Side]]:
    """Start the servers; yield the sides."""
    with ExitStack() as servers:
        pace = paced_engine(logs, tokens_per_s=options.tokens_per_s, num_tokens=options.num_tokens)
        engine, sides = servers.enter_context(pace), []
        if options.workers:
            redis = servers.enter_context(run_redis())
            asked = [workers(number, redis.url) for number in options.workers]
        else:
            asked = programs(litellm=options.litellm, agentic=options.agentic)
        for program in asked:
            server = servers.enter_context(program.start(engine, logs))
            sides += [Side(server, way) for way in program.ways]
        yield sides


async def measure(options: argparse.Namespace, sides: Sequence[Side]) -> None:
    """Print a row for each side and number of streams."""
    print(
        "| side | streams | tokens/s each | CPU µs/token | of the first's | tokens/s in all "
        "| reads/token | first text, ms | ended well |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for num_streams in options.streams:
        seen = {side.way.name: Seen() for side in sides}
        for number in range(options.rounds + 1):
            for side in sides:
                warm = seen[side.way.name] if number else Seen()
                await one_round(side, warm, num_streams, options.num_tokens)
        for name, rows in seen.items():
            ratio = statistics.median(a / b for a, b in zip(rows.cpu_us, seen[sides[0].way.name].cpu_us, strict=True))
            print(f"| {name} | {num_streams} | {options.tokens_per_s:g} | {_row(rows, ratio, options)} |", flush=True)


def _row(seen: Seen, ratio: float, options: argparse.Namespace) -> str:
    cpu, streams = seen.cpu_us, seen.streams
    reads = sum(s.num_reads for s in streams) / (len(streams) * options.num_tokens)
    first_ms = 1000 * statistics.median(s.first_text_s for s in streams)
    ended = sum(s.ended_well for s in streams) / len(streams)
    return (
        f"{statistics.median(cpu):.0f} ({min(cpu):.0f}–{max(cpu):.0f}) | {ratio:.1f} "
        f"| {statistics.median(seen.tokens_per_s):.0f} | {reads:.2f} | {first_ms:.0f} | {ended:.0%}"
    )


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[64])
    parser.add_argument("--tokens-per-s", type=float, default=50.0, help="of each stream")
    parser.add_argument("--num-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy (scripts/setup-compared)")
    parser.add_argument("--agentic", help="the program agentic-server (scripts/setup-compared)")
    parser.add_argument("--workers", type=int, nargs="+", help="measure gateways of so many workers, by chat alone")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, stack(options, Path(logs)) as sides:
        asyncio.run(measure(options, sides))


if __name__ == "__main__":
    main()
