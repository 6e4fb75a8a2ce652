"""How much memory a stream takes: many held open at once on one process.

    python -m loadtests.streaming.held --streams 2000

starts a paced engine and, for each way to ask, a fresh server before it. A few streams warm it up; then all are opened,
at a steady rate, and its resident memory is read when each has brought text, and again just before the first ends.
"""

import argparse
import asyncio
import resource
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from loadtests.paced_stack import paced_engine
from loadtests.processes import Server
from loadtests.soak.process import Process
from loadtests.streaming.sides import Program, Streamed, Way, programs, stream

_NUM_WARM = 32
_OPENED_PER_S = 200.0


@dataclass(frozen=True)
class Held:
    """Memory of a server's process, in bytes, and what its clients saw."""

    before: int
    opened: int
    """When all streams had brought text."""
    peak: int
    streams: list[Streamed]
    cpu_s: float

    def row(self) -> str:
        """Return the cells of a row."""
        num = len(self.streams)
        opened, peak = ((value - self.before) / 1000 / num for value in (self.opened, self.peak))
        ended = sum(one.ended_well for one in self.streams)
        first_s = statistics.median(one.first_text_s for one in self.streams)
        return (
            f"{num} | {self.before / 1e6:.0f} | {opened:.1f} | {peak:.1f} | {ended} | {first_s:.2f} | {self.cpu_s:.0f}"
        )


async def hold(server: Server, way: Way, num_streams: int) -> Held:
    """Open the streams and read them to their ends."""
    process, opened, opened_bytes = Process(server.pid), 0, 0
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**12) as session:
        await asyncio.gather(*(stream(session, server.url, way) for _ in range(_NUM_WARM)))
        before = peak = process.rss_bytes
        cpu_before = process.cpu_s

        def has_text() -> None:
            nonlocal opened, opened_bytes
            opened += 1
            if opened == num_streams:
                opened_bytes = process.rss_bytes

        async def later(delay_s: float) -> Streamed:
            await asyncio.sleep(delay_s)
            return await stream(session, server.url, way, has_text)

        tasks = [asyncio.create_task(later(number / _OPENED_PER_S)) for number in range(num_streams)]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0.25)
            peak = max(peak, process.rss_bytes)
    return Held(before, opened_bytes, peak, [task.result() for task in tasks], process.cpu_s - cpu_before)


def measure(engine: Server, program: Program, way: Way, options: argparse.Namespace, logs: Path) -> None:
    """Print the row of a way to ask."""
    with program.start(engine, logs) as server:
        held = asyncio.run(hold(server, way, options.streams))
    print(f"| {way.name} | {held.row()} |", flush=True)


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--tokens-per-s", type=float, default=2.0, help="of each stream")
    parser.add_argument("--num-tokens", type=int, default=60)
    parser.add_argument("--ways", nargs="+", default=["chat", "responses", "native"], help="to ask the gateway")
    parser.add_argument("--litellm", help="the program of LiteLLM's proxy (scripts/setup-compared)")
    parser.add_argument("--agentic", help="the program agentic-server (scripts/setup-compared)")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(
        "| way | streams | RSS before, MB | kB a stream, opened | at the peak | ended well | first text, s | CPU, s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        with paced_engine(logs, tokens_per_s=options.tokens_per_s, num_tokens=options.num_tokens) as engine:
            own, *others = programs(litellm=options.litellm, agentic=options.agentic)
            for way in own.ways:
                if way.name in options.ways:
                    measure(engine, own, way, options, logs)
            for program in others:
                for way in program.ways:
                    measure(engine, program, way, options, logs)


if __name__ == "__main__":
    main()
