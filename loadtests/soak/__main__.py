"""A soak of the gateway: mixed traffic and faults for half an hour, and nothing may grow, nothing may get lost.

    python -m loadtests.soak

starts a Redis, an engine to break, a search server and a gateway, all on 127.0.0.1. Rounds of load, each with one
fault, alternate with quiet moments, in which the gateway's memory and open files are sampled. Exits with 1 where its
resident memory grew by more than 5 % between the first and the last fifth after warm-up (medians of quiet moments),
open files grew, a run was left over, or a request got none of the documented answers. Draws ``docs/results/soak.png``.
"""

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from tqdm import tqdm

from loadtests.gateway_metrics import total
from loadtests.soak.faults import BUSY, FAULTS, Troubles
from loadtests.soak.growth import Sample, growth
from loadtests.soak.plot import draw
from loadtests.soak.process import Process
from loadtests.soak.stack import Stack, running_stack
from loadtests.soak.tally import Tally
from loadtests.soak.traffic import Traffic

_FAULT_AFTER_S = 5.0
_SAMPLE_EVERY_S = 2.0
_SETTLE_S = 6.0
"""Longer than idle connections to engine and search server are kept, and than a run waits for its reader."""
_QUIET_SAMPLES = 3
_MAX_WAIT_S = 60.0


@dataclass
class Watch:
    """Samples of the gateway's process."""

    process: Process
    redis_port: int
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    @property
    def elapsed_s(self) -> float:
        """Since the soak began."""
        return time.monotonic() - self.began

    def look(self, *, quiet: bool) -> None:
        """Take a sample."""
        num_redis = self.process.num_connected_to(self.redis_port)
        num_files = len(self.process.files())
        self.samples.append(Sample(self.elapsed_s, self.process.rss_bytes, num_files, num_redis, quiet))

    async def keep_looking(self) -> None:
        """Take samples until cancelled."""
        while True:
            self.look(quiet=False)
            await asyncio.sleep(_SAMPLE_EVERY_S)


async def soak(stack: Stack, options: argparse.Namespace, tally: Tally, watch: Watch) -> None:
    """Rounds of load and quiet until the time is over."""
    traffic = Traffic(stack.gateway.url, tally, options.rate)
    faults = itertools.cycle(FAULTS.items())
    total_s = 60 * options.minutes
    whole_s, told_s = round(total_s), 0
    with tqdm(total=whole_s, unit="s", desc="soak", mininterval=5) as bar:
        while watch.elapsed_s < total_s:
            looking = asyncio.create_task(watch.keep_looking())
            asking = asyncio.create_task(tally.troubles.watch_engine(f"{stack.engine_url}/health"))
            name, do = next(faults)
            bar.set_postfix_str(f"{name}; {tally.counts.total()} requests, {len(tally.lost)} lost")
            async with asyncio.TaskGroup() as group:
                group.create_task(traffic.burst(options.burst_s))
                await asyncio.sleep(_FAULT_AFTER_S)
                with tally.troubles.during(name):
                    await do(stack)
            looking.cancel()
            asking.cancel()
            await _until_idle(stack.gateway.url, tally)
            for _ in range(_QUIET_SAMPLES):
                watch.look(quiet=True)
                await asyncio.sleep(1)
            passed_s = min(round(watch.elapsed_s), whole_s)
            bar.update(passed_s - told_s)
            told_s = passed_s


async def _until_idle(url: str, tally: Tally) -> None:
    """Wait until no run is left and idle connections had time to close."""
    give_up = time.monotonic() + _MAX_WAIT_S
    async with aiohttp.ClientSession() as http:
        num_running = await _num_running(http, url)
        while num_running and time.monotonic() < give_up:
            await asyncio.sleep(0.5)
            num_running = await _num_running(http, url)
    if num_running:
        tally.lost.append(f"{num_running:g} runs were left over after {_MAX_WAIT_S:g} s of quiet")
    await asyncio.sleep(_SETTLE_S)


async def _num_running(http: aiohttp.ClientSession, url: str) -> float:
    async with http.get(f"{url}/metrics") as response:
        return total(await response.text(), "searchr1_runs_running")


def report(tally: Tally, watch: Watch, warm_up_s: float) -> bool:
    """Print what became of requests, memory and open files; return whether all is well."""
    found = growth(watch.samples, warm_up_s)
    mib = 2**20
    print(tally.table())
    print()
    print("| in quiet moments, medians | first fifth | last fifth | growth |")
    print("|---|---|---|---|")
    rss = f"| {found.rss_before / mib:.1f} MiB | {found.rss_after / mib:.1f} MiB | {found.rss_share:+.1%} |"
    print(f"| resident memory {rss}")
    files = found.descriptors_after - found.descriptors_before
    print(f"| open files | {found.descriptors_before:g} | {found.descriptors_after:g} | {files:+g} |")
    peak = max(watch.samples, key=lambda sample: sample.rss_bytes)
    most = max(sample.num_descriptors for sample in watch.samples)
    redis = max(sample.num_redis for sample in watch.samples)
    num_late = tally.troubles.num_busy
    num_faults = sum(name != BUSY for name, _, _ in tally.troubles.spans)
    print(f"\nAt most, under load: {peak.rss_bytes / mib:.1f} MiB, {most} open files; {redis} connections to Redis.")
    print(
        f"{tally.counts.total()} requests, {num_faults} faults, the engine late by itself {num_late} times: "
        f"meanwhile {tally.in_trouble} were refused or failed in documented words; {len(tally.lost)} were lost."
    )
    if tally.lost:
        print(tally.told_lost())
    return not (tally.lost or found.is_too_much)


def main() -> None:
    """Read the options, soak, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=float, default=5.0, help="minutes that are not judged")
    parser.add_argument("--rate", type=float, default=20.0, help="requests per second under load")
    parser.add_argument("--burst-s", type=float, default=30.0, help="seconds of load in each round")
    parser.add_argument("--plot", type=Path, default=Path("docs/results/soak.png"))
    parser.add_argument("--logs", type=Path, help="folder that keeps the logs (default: a temporary one)")
    options = parser.parse_args()
    tally = Tally(Troubles())
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.logs or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with running_stack(folder) as stack:
            watch = Watch(Process(stack.gateway.pid), stack.redis.port)
            asyncio.run(soak(stack, options, tally, watch))
        if stack.gateway.left_processes:
            tally.lost.append("the gateway left processes behind")
    spans = [(name, began - watch.began, ended - watch.began) for name, began, ended in tally.troubles.spans]
    draw(options.plot, watch.samples, spans, 60 * options.warm_up)
    sys.exit(0 if report(tally, watch, 60 * options.warm_up) else 1)


if __name__ == "__main__":
    main()
