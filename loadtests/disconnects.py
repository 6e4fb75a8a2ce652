"""How soon an engine is idle after clients that leave at random moments.

    python -m loadtests.disconnects
    python -m loadtests.disconnects --vllm

starts a gateway before a paced engine, or before a real vLLM of the demo's checkpoint, with searches that take a while.
In each round, clients ask in every streaming API and leave somewhere in the queue, in the reasoning, in a search or
after the answer; the last ones leave all at once. Then counts the time until gateway and engine say that nothing runs
or waits. Beside it, as many bare completions straight at the engine are left in the same way: no gateway can be faster.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.gateway_metrics import total
from loadtests.paced_stack import demo_vllm, gateway_before, paced_engine
from loadtests.streaming.paced_engine import MODEL
from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.pool.load import load_of
from searchr1.loop.profiles.search_r1 import SEARCH_R1
from searchr1.tokenizer import Tokenizer

_POLL_S = 0.02
_GIVE_UP_S = 60.0
_SEARCH_S = 0.5
_SERVED = "served"
_QUESTIONS = ("Which currency is used in Mali?", "What is the capital of the country where Timbuktu is?")


@dataclass(frozen=True)
class Side:
    """A way to ask: an address, and the paths and bodies that clients choose from."""

    name: str
    url: str
    requests: list[tuple[str, dict[str, object]]]


@dataclass
class Idle:
    """Seconds from the last client's leaving until nothing ran or waited, round by round."""

    gateway_s: list[float] = field(default_factory=list)
    engine_s: list[float] = field(default_factory=list)
    left_in: Counter[str] = field(default_factory=Counter)
    """What the clients had seen last."""


async def ask(http: aiohttp.ClientSession, side: Side, chance: random.Random, leave_after_s: float) -> str:
    """Ask, leave after so many seconds, and return what was seen last."""
    path, body = chance.choice(side.requests)
    seen = "nothing"
    with suppress(TimeoutError):
        async with asyncio.timeout(leave_after_s), http.post(side.url + path, json=body) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: "):
                    seen = _phase(line, seen)
    return seen


_PHASES = (
    (b"run.queued", "queue"),
    (b"[DONE]", "end"),
    (b"run.completed", "end"),
    (b"response.completed", "end"),
    (b"search.started", "search"),
    (b"[search]", "search"),
    (b"web_search_call.searching", "search"),
    (b"answer", "answer"),
)


def _phase(line: bytes, before: str) -> str:
    """Return where in its run a stream is, by its newest line."""
    return next((phase for mark, phase in _PHASES if mark in line), "queue" if b"started" in line else "reasoning")


async def one_round(side: Side, engine_url: str, idle: Idle, options: argparse.Namespace, longest_s: float) -> None:
    """Have clients come and leave, the last ones at once; note when gateway and engine are idle."""
    chance, num_left = random.Random(len(idle.engine_s)), 0
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:

        async def client() -> None:
            nonlocal num_left
            while num_left < options.clients - options.at_once:
                num_left += 1
                idle.left_in[await ask(http, side, chance, chance.uniform(0.0, longest_s))] += 1

        await asyncio.gather(*(client() for _ in range(options.at_once)))
        last_s = chance.uniform(0.2, 0.8) * longest_s
        idle.left_in.update(await asyncio.gather(*(ask(http, side, chance, last_s) for _ in range(options.at_once))))
    left_at = time.perf_counter()
    is_gateway = side.url != engine_url
    waits = [_until_idle(engine_url, _engine_load, left_at)]
    if is_gateway:
        waits.append(_until_idle(side.url, _gateway_load, left_at))
    engine_s, *gateway_s = await asyncio.gather(*waits)
    idle.engine_s.append(engine_s)
    idle.gateway_s += gateway_s


async def _until_idle(url: str, num_open: Callable[[str], float], left_at: float) -> float:
    """Return the seconds from ``left_at`` until the metrics at ``url`` tell that nothing is open."""
    async with aiohttp.ClientSession() as http:
        while time.perf_counter() - left_at < _GIVE_UP_S:
            async with http.get(f"{url}/metrics") as response:
                if not num_open(await response.text()):
                    return time.perf_counter() - left_at
            await asyncio.sleep(_POLL_S)
    return float("inf")


def _engine_load(metrics: str) -> float:
    load = load_of(metrics)
    return load.num_running + load.num_waiting


def _gateway_load(metrics: str) -> float:
    return total(metrics, "searchr1_runs_running")


async def whole_s(side: Side, at_once: int) -> float:
    """Return the median seconds of undisturbed runs."""
    took: list[float] = []

    async def one(http: aiohttp.ClientSession, number: int) -> None:
        began = time.perf_counter()
        await ask(http, side, random.Random(number), _GIVE_UP_S)
        took.append(time.perf_counter() - began)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        await asyncio.gather(*(one(http, number) for number in range(at_once)))
    return statistics.median(took)


def through_gateway(url: str, model: str) -> Side:
    """Return every streaming API of a gateway. What is not stored ends when its client leaves."""
    requests: list[tuple[str, dict[str, object]]] = []
    for question in _QUESTIONS:
        asked = {"model": model, "stream": True}
        requests += [
            ("/v1/chat/completions", {**asked, "messages": [{"role": "user", "content": question}]}),
            ("/v1/responses", {**asked, "input": question, "store": False}),
            ("/v1/research", {"question": question, "stream": True, "store": False}),
        ]
    return Side("through the gateway", url, requests)


def straight(url: str, model: str) -> Side:
    """Return bare completions of the same prompts."""
    tokenizer = Tokenizer.load(str(CHECKPOINT))
    prompts = [tokenizer.encode_prompt(tokenizer.render(SEARCH_R1.prompt(question))) for question in _QUESTIONS]
    body = {"model": model, "stream": True, "temperature": 0, "max_tokens": 500, "ignore_eos": True}
    return Side("straight", url, [("/v1/completions", {**body, "prompt": list(ids)}) for ids in prompts])


@contextmanager
def sides(options: argparse.Namespace, logs: Path) -> Iterator[list[Side]]:
    """Start engine, search and gateway; yield the sides, the engine's own first."""
    settings = {"served_name": _SERVED, "max_concurrent_runs": str(options.slots), "max_queued_runs": "1000"}
    settings["cache"] = "false"  # Each search shall take its time.
    with ExitStack() as stack:
        paced = stack.enter_context(paced_engine(logs, tokens_per_s=50, num_tokens=64, searches=1, search_s=_SEARCH_S))
        engine, model = (stack.enter_context(demo_vllm(logs)), str(CHECKPOINT)) if options.vllm else (paced, MODEL)
        gateway = stack.enter_context(
            gateway_before([engine.url], logs, model=model, retriever=f"{paced.url}/retrieve", settings=settings)
        )
        yield [straight(engine.url, model), through_gateway(gateway.url, _SERVED)]


async def measure(given: list[Side], options: argparse.Namespace) -> None:
    """Alternate the rounds of both sides and print a row for each."""
    engine_url = given[0].url
    found = {side.name: Idle() for side in given}
    longest = {side.name: await whole_s(side, options.at_once) for side in given}
    for _ in range(options.rounds):
        for side in given:
            await one_round(side, engine_url, found[side.name], options, longest[side.name])
    print("| side | an undisturbed run, s | gateway idle after, s | engine idle after, s | left in |")
    print("|---|---|---|---|---|")
    for name, idle in found.items():
        left = ", ".join(f"{phase} {count}" for phase, count in idle.left_in.most_common())
        print(f"| {name} | {longest[name]:.1f} | {_spread(idle.gateway_s)} | {_spread(idle.engine_s)} | {left} |")


def _spread(seconds: list[float]) -> str:
    if not seconds:
        return "–"
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f}–{max(seconds):.2f})"


def main() -> None:
    """Parse the arguments, start the servers and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", action="store_true", help="a real vLLM of the demo's checkpoint, not a paced engine")
    parser.add_argument("--clients", type=int, default=500, help="that leave in each round")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--slots", type=int, default=48, help="runs at once; the others wait in the queue")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as logs, sides(options, Path(logs)) as given:
        asyncio.run(measure(given, options))


if __name__ == "__main__":
    main()
