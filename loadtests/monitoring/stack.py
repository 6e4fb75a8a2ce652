"""A gateway under load, as Prometheus watches it: engines and a search behind it, askers in front."""

import asyncio
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from loadtests.processes import Server, free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from tests.engines.vllm.fake_vllm import MODEL, Fault

_NUM_ASKERS = 8
_ENVIRONMENT = {
    # Fewer than askers, so that runs wait, and some are refused.
    "SEARCHR1_MAX_CONCURRENT_RUNS": "4",
    "SEARCHR1_MAX_QUEUED_RUNS": "2",
    "SEARCHR1_DEADLINE_S": "20",
    "SEARCHR1_SEARCH_COSTS_USD": '{"retrieve": 0.001}',
    "OMP_NUM_THREADS": "1",
}
_PAUSE_S = 0.1
"""Of an asker, between two questions."""


@dataclass(frozen=True)
class Stack:
    """What runs."""

    gateway: Server
    fault_file: Path

    @property
    def target(self) -> str:
        """Host and port to scrape."""
        return self.gateway.url.removeprefix("http://")

    @contextmanager
    def during(self, fault: Fault) -> Iterator[None]:
        """Have every completion go wrong while the block runs."""
        self.fault_file.write_text(fault.name, "utf-8")
        try:
            yield
        finally:
            self.fault_file.write_text("", "utf-8")


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Start everything in ``folder``, ask until the block ends, and end it."""
    with ExitStack() as stack:
        ports, fault_file = [free_port() for _ in range(3)], folder / "fault"
        command = [sys.executable, "-m", "loadtests.monitoring.behind", "--fault-file", str(fault_file)]
        command += ["--ports", *map(str, ports)]
        stack.enter_context(running(command, ports[0], ready="/health", log=folder / "behind.log"))
        engines = ",".join(f"http://127.0.0.1:{port}" for port in ports[:2])
        port = free_port()
        command = searchr1(
            *("serve", "--engine-url", engines, "--model", MODEL, "--tokenizer", str(CHECKPOINT)),
            *("--retriever", f"http://127.0.0.1:{ports[2]}/retrieve", "--port", str(port)),
        )
        log = folder / "gateway.log"
        gateway = stack.enter_context(running(command, port, ready="/readyz", log=log, environment=_ENVIRONMENT))
        stack.enter_context(_asking(gateway.url))
        yield Stack(gateway, fault_file)


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Have askers ask in a thread of their own until the block ends."""
    stop = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(_ask(url, stop)), name="askers")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def _ask(url: str, stop: threading.Event) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        await asyncio.gather(*(_asker(http, url, random.Random(number), stop) for number in range(_NUM_ASKERS)))


async def _asker(http: aiohttp.ClientSession, url: str, chance: random.Random, stop: threading.Event) -> None:
    while not stop.is_set():
        question = f"What is told of entry {chance.randrange(1000)}?"
        path, body = chance.choice(
            [
                ("/v1/research", {"question": question, "stream": True}),
                ("/v1/research", {"question": question}),
                ("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": question}]}),
            ]
        )
        with suppress(aiohttp.ClientError, TimeoutError):
            async with http.post(f"{url}{path}", json=body) as response:
                await response.read()
        await asyncio.sleep(_PAUSE_S)
