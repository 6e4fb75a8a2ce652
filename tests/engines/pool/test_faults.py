"""Servers that break in every way, over real sockets: no run is lost, and each ends as an undisturbed one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from searchr1.driver import DriveOptions, DriveStats, drive_to_end
from searchr1.engines.base import Engine
from searchr1.engines.pool.discovery import Static
from searchr1.engines.pool.pool import PoolTimes, VllmPool
from searchr1.engines.retry_budget import RetryBudget
from searchr1.engines.vllm.http import HttpTimeouts, VllmHttpEngine
from searchr1.loop.types import Status
from searchr1.retrieval.base import Found
from searchr1.retrieval.fake import FakeRetriever
from tests.engines.deterministic import encode
from tests.engines.pool.questions import answer_of, expected_segments, new_rollout, questions_model
from tests.engines.vllm.fake_vllm import MODEL, FakeVllm, Fault, serve_fake_vllm

TIMES = PoolTimes(look_every_s=0.2, stuck_s=1.0)
TIMEOUTS = HttpTimeouts(probe_s=0.4, health_kept_s=0.0, silence_s=600.0)
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> RetryBudget:
    """A budget of the test's own."""
    own = RetryBudget()
    monkeypatch.setattr("searchr1.driver.SHARED_BUDGET", own)
    return own


def connect(url: str) -> VllmHttpEngine:
    return VllmHttpEngine(url, MODEL, timeouts=TIMEOUTS)


def pool_of(*urls: str, stuck_s: float = TIMES.stuck_s) -> VllmPool:
    return VllmPool(Static(frozenset(urls)), connect, times=replace(TIMES, stuck_s=stuck_s))


@asynccontextmanager
async def fakes(count: int, pause_s: float = 0.0) -> AsyncIterator[list[FakeVllm]]:
    async with AsyncExitStack() as stack:
        served = []
        for _ in range(count):
            fake = await stack.enter_async_context(serve_fake_vllm((), encode=encode, model=questions_model))
            fake.pause_s = pause_s
            served.append(fake)
        yield served


@contextmanager
def process(pause_s: float) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "tests.engines.pool.serve_questions", str(pause_s)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as served:
        try:
            assert served.stdout is not None
            yield served.stdout.readline().strip(), served
        finally:
            served.kill()


async def run(engine: Engine, number: int, stats: DriveStats) -> None:
    """Drive question ``number`` and hold it against an undisturbed run."""
    rollout = new_rollout(number)
    options = DriveOptions(session=f"run-{number}", temperature=0.0, deadline_s=25.0)
    result = await drive_to_end(rollout, engine, FakeRetriever(lambda query, k: Found(())), options, stats)
    assert result.engine_error is None, f"{number}: {result.engine_error!r}"
    assert (rollout.status, rollout.answer) == (Status.COMPLETED, answer_of(number))
    completions = [(one.text, one.sampled_ids) for one in rollout.segments if one.sampled]
    assert completions == expected_segments(number)


async def run_all(engine: Engine, count: int, at_once: int = 32) -> DriveStats:
    stats, gate = DriveStats(), asyncio.Semaphore(at_once)

    async def one(number: int) -> None:
        async with gate:
            await run(engine, number, stats)

    await asyncio.gather(*map(one, range(count)))
    return stats


REFUSALS = (Fault.REFUSE_BROKEN, Fault.REFUSE_RATE, Fault.REFUSE_BUSY)
BREAKS = (Fault.DROP, Fault.UNFINISHED, Fault.ERROR_IN_STREAM)


@pytest.mark.parametrize("faults", [REFUSALS, BREAKS], ids=["refusals", "breaks in the middle"])
async def test_four_hundred_runs_survive_one_server_that_fails_every_tenth_call(faults: tuple[Fault, ...]) -> None:
    async with fakes(1) as [fake], connect(fake.url) as engine:
        fake.fault_of = lambda number: faults[number // 10 % len(faults)] if number % 10 == 3 else None
        stats = await run_all(engine, 400, at_once=64)
        assert stats.num_engine_retries >= 80
        assert (stats.num_resumes > 0) == (faults is BREAKS)


async def test_runs_survive_a_pool_whose_servers_all_fail_in_all_ways() -> None:
    async with fakes(3) as served, pool_of(*(fake.url for fake in served)) as pool:
        for fake in served:
            fake.fault_of = lambda number: (BREAKS + REFUSALS)[number // 10 % 6] if number % 10 == 3 else None
        stats = await run_all(pool, 150)
        assert stats.num_resumes > 0
        assert pool.num_failovers > 0
        assert {view.num_in_flight for view in pool.replicas} == {0}


@pytest.mark.parametrize("fault", [Fault.STALL, Fault.DRIP])
async def test_a_completion_that_hangs_or_drips_goes_on_elsewhere(fault: Fault) -> None:
    async with fakes(2, pause_s=0.002) as served, pool_of(*(fake.url for fake in served)) as pool:
        served[0].fault_of = lambda number: fault if number % 4 == 1 else None
        stats = await run_all(pool, 24)
        assert stats.num_resumes >= 2


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_runs_survive_a_server_that_is_killed_or_stopped_under_them(number: signal.Signals) -> None:
    with process(0.02) as (url, served):
        async with fakes(1, pause_s=0.02) as [fake], pool_of(url, fake.url, stuck_s=600.0) as pool:
            running = asyncio.create_task(run_all(pool, 32))
            await until(lambda: fake.steps > 150)
            os.kill(served.pid, number)
            stats = await running
            assert stats.num_resumes > 4
            await until(lambda: [view.state for view in pool.replicas if view.name == url] == ["unwell"])
            assert (await pool.health()).ok
            if number is signal.SIGSTOP:
                os.kill(served.pid, signal.SIGCONT)
                await until(lambda: all(view.healthy for view in pool.replicas))


async def test_runs_survive_a_drain_and_a_server_that_joins() -> None:
    async with fakes(3, pause_s=0.02) as served, pool_of(served[0].url, served[1].url) as pool:
        running = asyncio.create_task(run_all(pool, 48))
        await until(lambda: served[0].steps > 150)
        pool.add(served[2].url)
        await pool.drain(served[0].url)
        assert {view.name for view in pool.replicas} == {served[1].url, served[2].url}
        assert served[0].num_running == 0
        stats = await running
        assert stats.num_resumes > 4
        assert len(served[2].bodies) > 0


async def test_a_drain_with_time_lets_completions_end() -> None:
    async with fakes(2, pause_s=0.002) as served, pool_of(*(fake.url for fake in served)) as pool:
        running = asyncio.create_task(run_all(pool, 16))
        await until(lambda: served[0].steps > 40)
        await pool.drain(served[0].url, within_s=20.0)
        assert (await running).num_resumes == 0


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come about")
