"""Runs under load while something breaks: how many are answered, and how many characters are wrong.

    python -m loadtests.faults
    python -m loadtests.faults --runs 400 --only gateway

starts two gateways that share a Redis before two engines, anew for each fault, and reads runs whose every character is
known as streams over both gateways, taking a broken stream up where it broke off. Exits with 1 where anything was lost.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from loadtests.faults.engine import question_of
from loadtests.faults.reading import Reading, expected, read_run
from loadtests.faults.scenarios import SCENARIOS, Scenario
from loadtests.faults.stack import Stack, running_stack
from searchr1.loop.types import Status


@dataclass
class Counts:
    """What became of the runs of a scenario."""

    num_runs: int
    readings: list[Reading] = field(default_factory=list)
    num_wrong: int = 0
    """Characters, in runs that were answered."""
    took_s: float = 0.0

    def add(self, number: int, reading: Reading) -> None:
        """Count a run."""
        self.readings.append(reading)
        if reading.end == Status.COMPLETED:
            self.num_wrong += reading.differences(expected(number))

    @property
    def num_answered(self) -> int:
        """Number of runs that ended with an answer."""
        return sum(reading.end == Status.COMPLETED for reading in self.readings)

    @property
    def is_clean(self) -> bool:
        """True where nothing is lost, wrong, or out of order."""
        return self.num_answered == self.num_runs and not self.num_wrong and not self.num_gaps

    @property
    def num_gaps(self) -> int:
        """Number of events that came out of order, twice or never."""
        return sum(reading.num_gaps for reading in self.readings)

    def row(self, name: str) -> str:
        """Return a row of the table."""
        ends = [reading.end or "no end" for reading in self.readings if reading.end != Status.COMPLETED]
        lost = ", ".join(f"{ends.count(end)} {end}" for end in sorted(set(ends))) or "0"
        taken_up = sum(reading.num_taken_up > 0 for reading in self.readings)
        counted = f"{self.num_runs} | {self.num_answered} | {lost} | {self.num_wrong} | {self.num_gaps} | {taken_up}"
        return f"| {name} | {counted} | {self.took_s:.0f} |"


async def count(scenario: Scenario, stack: Stack, num_runs: int, at_once: int) -> Counts:
    """Read all runs, with the fault in their middle."""
    counts, gate, is_time = Counts(num_runs), asyncio.Semaphore(at_once), asyncio.Event()
    stack.set_faults(*scenario.of_calls)
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=90.0)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def one(number: int) -> None:
            async with gate:
                counts.add(number, await read_run(http, list(stack.gateways), question_of(number)))
                if len(counts.readings) >= num_runs // 3:
                    is_time.set()

        async def break_it() -> None:
            await is_time.wait()
            if scenario.at_once is not None:
                await scenario.at_once(stack)

        await asyncio.gather(break_it(), *map(one, range(num_runs)))
    counts.took_s = time.monotonic() - began
    return counts


def main() -> None:
    """Parse the arguments; print a row for each fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="with each fault")
    parser.add_argument("--at-once", type=int, default=64)
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    parser.add_argument("--router", help="the program vllm-router, to stand between gateways and engines")
    parser.add_argument("--logs", type=Path, help="folder that keeps the logs (default: a temporary one)")
    options = parser.parse_args()
    print("| fault | runs | answered | lost | wrong characters | events out of order | streams taken up | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    is_clean = True
    for number, scenario in enumerate(SCENARIOS):
        if options.only not in scenario.name:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = (options.logs or Path(temporary)) / str(number)
            folder.mkdir(parents=True, exist_ok=True)
            running = running_stack(
                folder,
                num_engines=scenario.num_engines,
                num_gateways=scenario.num_gateways,
                router=options.router,
            )
            with running as stack:
                counts = asyncio.run(count(scenario, stack, options.runs, options.at_once))
        print(counts.row(scenario.name), flush=True)
        is_clean &= counts.is_clean
    sys.exit(not is_clean)


if __name__ == "__main__":
    main()
