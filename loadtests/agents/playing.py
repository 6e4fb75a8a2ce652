"""Runs that come at their times and are taken to their ends, all measured from their coming."""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import aiohttp

from loadtests.agents.asking import Ask, LostRunError, WrongRunError
from loadtests.agents.trace import AgentRun
from loadtests.simulator.arrivals import at_once, poisson

_TELL_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Played:
    """How a run went; times count from the first coming."""

    run: str
    came_s: float
    ended_s: float
    fate: Literal["ended", "wrong", "lost"]
    """A wrong run ended, but did other work than its trace has."""
    told: str = ""


@dataclass
class TokenGate:
    """Room for so many tokens. Runs go in by the order of their coming, each as soon as all of its tokens fit."""

    capacity_tokens: int

    def __post_init__(self) -> None:
        self._used = 0
        self._line: list[tuple[int, asyncio.Event]] = []

    def holding(self, tokens: int) -> AbstractAsyncContextManager[None]:
        """Hold room while the block runs; entering waits for it. Raises ``ValueError`` for more than there is."""
        if tokens > self.capacity_tokens:
            raise ValueError(f"{tokens} tokens never fit into {self.capacity_tokens}")

        @asynccontextmanager
        async def held() -> AsyncIterator[None]:
            may_go = asyncio.Event()
            self._line.append((tokens, may_go))
            self._let_in()
            try:
                await may_go.wait()
                yield
            finally:
                if may_go.is_set():
                    self._used -= tokens
                else:
                    self._line.remove((tokens, may_go))
                self._let_in()

        return held()

    def _let_in(self) -> None:
        while self._line and self._used + self._line[0][0] <= self.capacity_tokens:
            tokens, may_go = self._line.pop(0)
            self._used += tokens
            may_go.set()


def arrival_times_s(rate_per_s: float | None, num_runs: int, seed: int) -> list[float]:
    """Return when runs come: all at once, or independently at a rate."""
    arrivals = at_once() if rate_per_s is None else poisson(rate_per_s)
    times = arrivals(num_runs, random.Random(seed))
    return [at - times[0] for at in times]


async def play(
    runs: Sequence[AgentRun],
    times_s: Sequence[float],
    ask: Ask,
    *,
    at_most_s: float,
    gate: TokenGate | None = None,
    footprints: Sequence[int] = (),
) -> list[Played]:
    """Let the runs come and end; those that have not ended after ``at_most_s`` are lost.

    With a ``gate``, each waits there until its footprint fits.
    """
    started = time.perf_counter()
    done: list[Played] = []

    async def one(number: int, run: AgentRun, at: float) -> None:
        await asyncio.sleep(at)
        came_s = time.perf_counter() - started
        fate: Literal["ended", "wrong", "lost"] = "ended"
        told = ""
        try:
            async with gate.holding(footprints[number]) if gate is not None else nullcontext():
                await ask(run)
        except WrongRunError as error:
            fate, told = "wrong", str(error)
        except (LostRunError, aiohttp.ClientError, OSError) as error:
            fate, told = "lost", f"{type(error).__name__}: {error}"
        except asyncio.CancelledError:
            fate, told = "lost", f"had not ended after {at_most_s:g} s"
        done.append(Played(run.run, came_s, time.perf_counter() - started, fate, told))

    tasks = [asyncio.create_task(one(n, run, at)) for n, (run, at) in enumerate(zip(runs, times_s, strict=True))]
    telling = asyncio.create_task(_tell(done, len(runs), started))
    try:
        await asyncio.wait(tasks, timeout=at_most_s)
    finally:
        telling.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, telling, return_exceptions=True)
    return sorted(done, key=lambda played: played.run)


async def _tell(done: Sequence[Played], num_runs: int, started: float) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        latencies = [played.ended_s - played.came_s for played in done]
        mean = f", mean {statistics.fmean(latencies):.1f} s" if latencies else ""
        print(f"  {time.perf_counter() - started:5.0f} s: {len(done)} of {num_runs} runs have ended{mean}", flush=True)
