"""A rolling update in small: each gateway and each engine is restarted in turn, under load, behind a proxy.

    python -m loadtests.rolling --proxy nginx
    python -m loadtests.rolling --proxy envoy --at-once 64

Two gateways that share a Redis stand before two engines, and a proxy, by its recipe in ``deploy/proxies``, before the
gateways. Each server gets a SIGTERM, is waited for, and started again; an engine is taken out of the list of addresses
first, and a gateway out of nginx's, which asks no server whether it is ready. Clients ask natively, by chat and by
responses meanwhile, streamed or whole, and never twice. Exits with 1 where a request failed, a stream was lost, an
answer was wrong, or a gateway did not end with 0.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.faults.stack import Stack, running_stack
from loadtests.proxies import NAME, Front, front
from loadtests.rolling.asking import WAYS, Asker, FailedError
from loadtests.soak.stack import Program

_WARM_UP_S = 3.0
_MAX_SHOWN = 20
"""Failures that are printed."""


@dataclass
class Restart:
    """One server's restart."""

    name: str
    took_s: float
    exit_code: int | None


@dataclass
class Outcome:
    """What was seen."""

    num_asked: Counter[str] = field(default_factory=Counter)
    """By way."""
    failures: list[str] = field(default_factory=list)
    restarts: list[Restart] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """True where clients saw nothing, and gateways ended by themselves."""
        codes = [restart.exit_code for restart in self.restarts if restart.name.startswith("gateway")]
        return not self.failures and set(codes) == {0}

    def lines(self) -> list[str]:
        """Return two tables, and the first failures."""
        asked = [f"| {name} | {number} |" for name, number in sorted(self.num_asked.items())]
        done = [f"| {one.name} | {one.took_s:.1f} | {one.exit_code} |" for one in self.restarts]
        return [
            "| restarted | seconds | exit code |",
            "|---|---|---|",
            *done,
            "",
            "| asked | requests |",
            "|---|---|",
            *asked,
            "",
            f"{len(self.failures)} of {self.num_asked.total()} failed",
            *self.failures[:_MAX_SHOWN],
        ]


async def update(stack: Stack, proxy: Front, *, at_once: int, settle_s: float) -> Outcome:
    """Restart everything in turn while ``at_once`` clients ask. ``settle_s`` passes after each restart."""
    outcome, is_over, numbers = Outcome(), asyncio.Event(), itertools.count()
    # One connection a request, as different clients have; the name is the certificate's, and the proxy's host.
    connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=proxy.tls, resolver=_ToLoopback())
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http, asyncio.TaskGroup() as clients:
        asker = Asker(http, f"https://{NAME}:{proxy.port}")
        for _ in range(at_once):
            clients.create_task(_ask_until(is_over, asker, numbers, outcome))
        await asyncio.sleep(_WARM_UP_S)
        ports = gateway_ports(stack)
        for number, program in enumerate(stack.gateways.values(), 1):
            proxy.send_to([port for i, port in enumerate(ports, 1) if i != number])
            outcome.restarts.append(await _restart(f"gateway {number}", program))
            proxy.send_to(ports)
            await asyncio.sleep(settle_s)
        for number, (host, program) in enumerate(stack.engines.items(), 1):
            stack.drain(host)
            outcome.restarts.append(await _restart(f"engine {number}", program))
            stack.admit_all()
            await asyncio.sleep(settle_s)
        is_over.set()
    return outcome


def gateway_ports(stack: Stack) -> list[int]:
    """Return where the gateways of a stack listen."""
    return [int(url.rpartition(":")[2]) for url in stack.gateways]


async def _restart(name: str, program: Program) -> Restart:
    began = time.monotonic()
    exit_code = await asyncio.to_thread(program.stop)
    await asyncio.to_thread(program.start)
    return Restart(name, time.monotonic() - began, exit_code)


async def _ask_until(is_over: asyncio.Event, asker: Asker, numbers: "itertools.count[int]", outcome: Outcome) -> None:
    while not is_over.is_set():
        number = next(numbers)
        name, way = list(WAYS.items())[number % len(WAYS)]
        outcome.num_asked[name] += 1
        try:
            await way(asker, number)
        except (FailedError, aiohttp.ClientError, OSError, TimeoutError) as error:
            outcome.failures.append(f"{name}, number {number}: {type(error).__name__} {error}")


class _ToLoopback(aiohttp.abc.AbstractResolver):
    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[aiohttp.abc.ResolveResult]:
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": 2, "proto": 0, "flags": 0}]

    async def close(self) -> None:
        pass


def main() -> None:
    """Parse the arguments; print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", choices=("nginx", "caddy", "envoy"), default="nginx")
    parser.add_argument("--at-once", type=int, default=32, help="clients")
    parser.add_argument("--settle-s", type=float, default=6.0, help="seconds after each restart")
    parser.add_argument("--logs", type=Path, help="folder that keeps the logs (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        # Without keys and not open, gateways answer to their own machine's names alone, and the proxy has another.
        with (
            running_stack(folder, settings={"SEARCHR1_OPEN": "true"}) as stack,
            front(options.proxy, folder, gateway_ports(stack), has_rates=False) as proxy,
        ):
            outcome = asyncio.run(update(stack, proxy, at_once=options.at_once, settle_s=options.settle_s))
    print(*outcome.lines(), sep="\n")
    sys.exit(not outcome.is_clean)


if __name__ == "__main__":
    main()
