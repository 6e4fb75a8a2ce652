"""What hostile clients cost a gateway: refusals side by side, slow bodies and endless headers.

    python -m loadtests.hostile

starts a fake engine and a gateway with keys, both on 127.0.0.1. Costs are the gateway's CPU time per request, from the
kernel's own count, as ratios to the cheapest refusal: a 401 to a request without a body. Rounds alternate, so that a
noisy machine hits all alike.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from loadtests.processes import Server, free_port, running
from loadtests.soak.process import Process
from loadtests.soak.rough import answered, head, whole
from loadtests.soak.stack import KEYS, running_gateway
from tests.engines.vllm.fake_vllm import MODEL, Fault

_MIB = 2**20
_SLOTS = 4
_ASKED = {"question": "What is told of Mali?"}
_KEYLESS = "no-key-of-this-server"
_BIG = {"question": "x", "metadata": ["y" * 90] * 8800}
"""About 828 kB as JSON."""


@dataclass(frozen=True)
class Cost:
    """A kind of refused request."""

    name: str
    request: bytes
    status: str


def costs() -> list[Cost]:
    """Return what is compared, the cheapest first. Each has a connection of its own, as refused bodies end theirs."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "What is told of Mali?"}]}
    close = "Connection: close"
    return [
        Cost("401, no body", head("/v1/research", "Content-Length: 0", close, key=_KEYLESS), "401 invalid_api_key"),
        Cost("401, 828 kB of JSON", whole("/v1/research", _BIG, close, key=_KEYLESS), "401 invalid_api_key"),
        Cost("503, no slot, native", whole("/v1/research", _ASKED, close), "503 overloaded"),
        Cost("503, no slot, chat", whole("/v1/chat/completions", chat, close), "503 overloaded"),
        Cost("503, no slot, chat, n=4", whole("/v1/chat/completions", {**chat, "n": 4}, close), "503 overloaded"),
        Cost("503, no slot, 828 kB of JSON", whole("/v1/research", _BIG, close), "503 overloaded"),
    ]


async def _send(url: str, cost: Cost) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(cost.request)
        outcome = await answered(reader)
        if outcome != cost.status:
            raise AssertionError(f"{cost.name}: {outcome}")
    finally:
        writer.transport.abort()


async def compare_costs(gateway: Server, rounds: int, number: int) -> None:
    """Print what each kind of refusal costs."""
    process = Process(gateway.pid)
    spent: dict[str, list[float]] = {cost.name: [] for cost in costs()}
    for cost in costs():
        await _send(gateway.url, cost)
    for _ in range(rounds):
        for cost in costs():
            before = process.cpu_s
            for _ in range(number):
                await _send(gateway.url, cost)
            spent[cost.name].append((process.cpu_s - before) / number)
    cheapest = spent[costs()[0].name]
    print("| refusal | CPU ms | ratio |")
    print("|---|---|---|")
    for name, own in spent.items():
        ratio = statistics.median(s / base for s, base in zip(own, cheapest, strict=True))
        print(f"| {name} | {1000 * statistics.median(own):.2f} | {ratio:.1f} |", flush=True)


@asynccontextmanager
async def full(gateway: Server) -> AsyncIterator[None]:
    """Take all slots with runs whose engine stalls, until the block ends."""
    headers = {"Authorization": f"Bearer {KEYS[0]}"}
    async with aiohttp.ClientSession(gateway.url, headers=headers) as http:
        started = []
        for _ in range(_SLOTS):
            body = {"model": MODEL, "input": "?", "background": True, "deadline_s": 600}
            async with http.post("/v1/responses", json=body) as response:
                response.raise_for_status()
                started.append((await response.json())["id"])
        yield
        for run in started:
            async with http.post(f"/v1/responses/{run}/cancel") as response:
                response.raise_for_status()


class Memory:
    """The resident memory of a process: when it was begun with, and its peak since."""

    def __init__(self, pid: int) -> None:
        self._process = Process(pid)
        self.before = self.peak = self.now

    @property
    def now(self) -> int:
        """Bytes."""
        return self._process.rss_bytes

    async def watch(self) -> None:
        """Note the peak until cancelled."""
        while True:
            self.peak = max(self.peak, self.now)
            await asyncio.sleep(0.02)


@asynccontextmanager
async def _watched(gateway: Server, name: str) -> AsyncIterator[None]:
    memory = Memory(gateway.pid)
    watching = asyncio.create_task(memory.watch())
    try:
        yield
    finally:
        watching.cancel()
    await asyncio.sleep(5)
    grew, left = ((value - memory.before) / _MIB for value in (memory.peak, memory.now))
    print(f"| {name} | {memory.before / _MIB:.1f} MiB | {grew:+.1f} MiB | {left:+.1f} MiB |", flush=True)


async def slow_bodies(gateway: Server, number: int, seconds: float, *, key: str, first: bytes = b"") -> str:
    """Send ``first`` and then a byte each second on so many connections; tell how many were still open at the end."""
    parts = urlsplit(gateway.url)

    async def one() -> str:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answer = asyncio.ensure_future(answered(reader))
        try:
            writer.write(head("/v1/research", f"Content-Length: {1_000_000}", key=key) + first)
            for _ in range(round(seconds)):
                if answer.done():
                    return answer.result()
                writer.write(b" ")
                await asyncio.wait({answer}, timeout=1)
            return "open"
        finally:
            answer.cancel()
            writer.transport.abort()

    ends = await asyncio.gather(*(one() for _ in range(number)))
    return ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends)))


async def endless_headers(gateway: Server, number: int, megabytes: int, *, line: bytes) -> str:
    """Send so many megabytes of ``line``s as headers on each connection; tell what came of it."""
    parts = urlsplit(gateway.url)
    block = line * (65_536 // len(line) + 1) if line.endswith(b"\n") else line * 65_536

    async def one() -> tuple[int, str]:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        answer, sent = asyncio.ensure_future(answered(reader)), 0
        try:
            writer.write(head("/v1/models", method="GET")[:-2] + (b"" if line.endswith(b"\n") else b"X-Endless: "))
            with suppress(ConnectionError):
                while sent < megabytes * 1_000_000 and not answer.done():
                    writer.write(block)
                    sent += len(block)
                    async with asyncio.timeout(30):
                        await writer.drain()
            async with asyncio.timeout(30):
                return sent, await answer
        finally:
            answer.cancel()
            writer.transport.abort()

    ends = await asyncio.gather(*(one() for _ in range(number)))
    told = [end for _, end in ends]
    each = ", ".join(f"{told.count(end)} {end}" for end in sorted(set(told)))
    return f"{each}, after {max(sent for sent, _ in ends) / 1000:.0f} kB at most"


async def measure(gateway: Server, options: argparse.Namespace) -> None:
    """Print both tables."""
    async with full(gateway):
        await compare_costs(gateway, options.rounds, options.requests)
    print()
    print("| attack | RSS before | at its peak | 5 s after |")
    print("|---|---|---|---|")
    outcomes: list[str] = []
    slow, flood = options.connections, 200
    async with _watched(gateway, f"{slow} slow bodies with a key, 1 byte/s"):
        outcomes.append(await slow_bodies(gateway, slow, options.seconds, key=KEYS[0]))
    async with _watched(gateway, f"{slow} slow bodies without a key"):
        outcomes.append(await slow_bodies(gateway, slow, options.seconds, key=_KEYLESS))
    big = b" " * 900_000
    async with _watched(gateway, f"{flood} × 0.9 MB without a key, held open"):
        outcomes.append(await slow_bodies(gateway, flood, options.seconds, key=_KEYLESS, first=big))
    for name in (f"{flood} × 0.9 MB with a key, held open", "the same once more"):
        async with _watched(gateway, name):
            outcomes.append(await slow_bodies(gateway, flood, options.seconds, key=KEYS[0], first=big))
    async with _watched(gateway, "4 × 100 MB of one header"):
        outcomes.append(await endless_headers(gateway, 4, 100, line=b"x"))
    async with _watched(gateway, "4 × 100 MB of small headers"):
        outcomes.append(await endless_headers(gateway, 4, 100, line=b"X-Small: 1\r\n"))
    print("\nOutcomes, in that order:", *(f"* {outcome}" for outcome in outcomes), sep="\n")


@contextmanager
def _stack(folder: Path) -> Iterator[Server]:
    """A gateway before an engine that stalls."""
    (folder / "fault").write_text(Fault.STALL.name, "utf-8")
    port = free_port()
    command = [sys.executable, "-m", "loadtests.soak.engine", "--port", str(port)]
    command += ["--fault-file", str(folder / "fault")]
    with ExitStack() as stack:
        engine = stack.enter_context(running(command, port, ready="/health", log=folder / "engine.log"))
        gateway = running_gateway(
            folder,
            engine.url,
            f"{engine.url}/retrieve",  # Nobody searches here.
            max_concurrent_runs=str(_SLOTS),
            engine_silence_s="1000",
            body_timeout_s="30",
            header_timeout_s="30",
            access_log="false",
        )
        yield stack.enter_context(gateway)


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200, help="of each kind in each round")
    parser.add_argument("--connections", type=int, default=300, help="with slow bodies")
    parser.add_argument("--seconds", type=float, default=20.0, help="for which slow bodies are sent")
    options = parser.parse_args()
    os.environ.pop("SEARCHR1_API_KEYS", None)
    with tempfile.TemporaryDirectory() as folder, _stack(Path(folder)) as gateway:
        asyncio.run(measure(gateway, options))


if __name__ == "__main__":
    main()
