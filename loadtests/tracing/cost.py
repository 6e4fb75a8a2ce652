"""What tracing costs: the CPU time of one run without traces, with those that are not sampled, and with all."""

import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path

from loadtests.tracing.collector import running_collector
from searchr1.gateway.access.admission import RunOptions
from searchr1.gateway.runs.drive import run_events
from searchr1.gateway.services import Services
from searchr1.gateway.tracing.opening import open_tracing
from searchr1.identity import ANYONE
from searchr1.trace_context import TRACE_HEADERS
from tests.gateway.conftest import StageEngine, running_stage

ARMS = {"off": None, "not sampled": "always_off", "sampled": "always_on"}
LONG_WORDS = 400
_SHORT = ("<think> a b </think> <search> one </search>",) * 2 + ("<think> a b </think> <answer> two </answer>",)
_LONG = tuple(turn.replace("a b", " ".join(["word"] * LONG_WORDS)) for turn in _SHORT)


async def main(collector: Path, port: int, num_rounds: int, num_runs: int) -> None:
    """Print the median CPU microseconds a run of three turns, for short and for long completions."""
    with running_collector(collector, port, forward_to=None) as endpoint:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
        lengths = (("30 tokens", _SHORT, num_runs), (f"{3 * LONG_WORDS} tokens", _LONG, max(1, num_runs // 8)))
        for name, turns, num in lengths:
            took: dict[str, list[float]] = {arm: [] for arm in ARMS}
            async with AsyncExitStack() as stack:
                sides = {arm: await stack.enter_async_context(_side(sampler, turns)) for arm, sampler in ARMS.items()}
                for number in range(num_rounds + 1):
                    for arm, services in sides.items():
                        spent_us = await _round(services, num)
                        if number:  # The first one warms up.
                            took[arm].append(spent_us)
            base = statistics.median(took["off"])
            for arm, rounds in took.items():
                more = statistics.median(one - off for one, off in zip(rounds, took["off"], strict=True))
                print(f"{name}, {arm}: {statistics.median(rounds):.0f} us a run, {more:+.0f} us ({more / base:+.1%})")


@asynccontextmanager
async def _side(sampler: str | None, turns: tuple[str, ...]) -> AsyncIterator[Services]:
    os.environ["OTEL_TRACES_SAMPLER"] = sampler or ""
    async with (
        open_tracing(os.environ if sampler else {}, content=False) as tracing,
        running_stage(
            engine=StageEngine(completions=list(turns)),
            tracing=tracing,
            max_run_tokens=100_000,
            max_completion_tokens=5000,
        ) as stage,
    ):
        yield stage.services


async def _round(services: Services, num_runs: int) -> float:
    """Return the CPU microseconds of this process for a run, the thread that sends spans included."""
    started = time.process_time()
    for number in range(num_runs):
        TRACE_HEADERS.set({})
        span = None
        if services.tracing is not None:
            span = services.tracing.request("/v1/research", scheme="http", request_id="req")
        plan = services.default.admission.plan("Who?", RunOptions(), caller=ANYONE, run_id=f"run_{number}", stream=True)
        async with aclosing(run_events(services, plan, run_id=f"run_{number}")) as events:
            async for _ in events:
                pass
        if span is not None:
            span.ended(200)
    return (time.process_time() - started) / num_runs * 1e6
