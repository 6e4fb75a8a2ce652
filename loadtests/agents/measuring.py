"""One arm, measured: its servers are started with empty caches, its runs are played, and all is stopped again."""

import contextlib
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from loadtests import traces
from loadtests.agents.arms import Arm
from loadtests.agents.asking import Ask, ChatAgent, GatewayUser, client, keeping
from loadtests.agents.calibration import calibrated
from loadtests.agents.engine import NAME, EngineOptions, counted, counters, cpu_s, metrics, running_engine
from loadtests.agents.infer import asked_one_by_one
from loadtests.agents.operating import settings_of
from loadtests.agents.playing import Played, TokenGate, arrival_times_s, play
from loadtests.agents.result import Result, made_with
from loadtests.agents.retriever import serving
from loadtests.agents.script import CHECKPOINT
from loadtests.agents.trace import Trace, lengths, script_of
from loadtests.processes import Server, free_port, running
from loadtests.traces import RunTrace
from searchr1.engines.pool.load import load_of
from searchr1.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What all arms of a scenario share."""

    scenario: str
    trace: Trace
    engine: EngineOptions
    eos_id: int
    arrivals_per_s: float | None
    num_tail_tokens: int
    at_most_s: float
    thunderagent: Path | None
    folder: Path
    """For logs and scripts."""
    first_port: int | None = None
    options: str = ""
    """How the scenario was asked for, less names of files."""

    def odd_run(self, arm: Arm, repeat: int, run: str) -> Path:
        """Return the file for what a run told that did not do as its trace does."""
        return self.folder / f"odd-{self.scenario}-{arm.name}-{len(self.trace.runs)}-{repeat}-{run}.json"

    def ports(self) -> Callable[[], int]:
        """Return what gives out ports: from ``first_port`` on, or free ones."""
        if self.first_port is None:
            return free_port
        numbers: Iterator[int] = itertools.count(self.first_port)
        return lambda: next(numbers)


@dataclass(slots=True)
class Front:
    """What runs are asked of."""

    ask: Ask
    process: Server | None = None
    """What stands in front of the engine."""


async def measure(setup: Setup, arm: Arm, repeat: int) -> Result:
    """Measure one arm."""
    tokenizer = Tokenizer.load(str(setup.engine.checkpoint))
    script = setup.folder / "script.json"
    script_of(setup.trace, tokenizer, eos_id=setup.eos_id, num_tail_tokens=setup.num_tail_tokens).write(script)
    runs = lengths(setup.trace, tokenizer)
    traces.write(setup.folder / f"lengths-{setup.trace.digest}.jsonl", runs)
    port = setup.ports()
    result = Result(
        arm=arm.name,
        scenario=setup.scenario,
        num_runs=len(runs),
        repeat=repeat,
        trace=setup.trace.digest,
        began=time.strftime("%Y-%m-%dT%H:%M:%S"),
        least_prefill_tokens=sum(
            run.prompt_tokens - run.shared_tokens + sum(turn.passage_tokens for turn in run.turns) for run in runs
        ),
        footprint_tokens=sum(run.last_footprint for run in runs),
        arrivals_per_s=setup.arrivals_per_s,
        made_with=made_with(_told(setup.engine)) | {"options": setup.options},
    )
    async with serving(setup.trace, port()) as retriever:
        if arm.way == "infer":
            played = await asked_one_by_one(
                setup.engine.checkpoint, script, setup.trace, retriever.url, setup.at_most_s
            )
            return replace(result, runs=tuple(played), num_searches=retriever.num_searches)
        log = setup.folder / f"{arm.name}-vllm.log"
        with running_engine(
            setup.engine, python=sys.executable, port=port(), policy=arm.policy, script=script, log=log
        ) as engine:
            async with client() as http:
                capacity = load_of(await metrics(http, engine.url)).capacity_tokens or 0
                result = replace(result, capacity_tokens=capacity)
                if arm.way == "calibration":
                    return replace(result, rates=await calibrated(http, engine.url, tokenizer.vocab_size))
                async with _front(setup, arm, engine.url, retriever.url, port()) as front:
                    before, cpu_before = await counters(http, engine.url), _cpu_of(engine, front)
                    front.ask = keeping(front.ask, lambda run: setup.odd_run(arm, repeat, run))
                    played = await _played(setup, arm, runs, capacity, front)
                    after, cpu_after = await counters(http, engine.url), _cpu_of(engine, front)
    return replace(
        result,
        runs=tuple(played),
        counters=counted(before, after),
        num_searches=retriever.num_searches,
        engine_cpu_s=cpu_after[0] - cpu_before[0],
        router_cpu_s=cpu_after[1] - cpu_before[1],
    )


async def _played(setup: Setup, arm: Arm, runs: list[RunTrace], capacity: int, front: Front) -> list[Played]:
    gate = TokenGate(capacity) if arm.knows_lengths else None
    size = setup.engine.block_size
    return await play(
        setup.trace.runs,
        arrival_times_s(setup.arrivals_per_s, len(runs), seed=1),
        front.ask,
        at_most_s=setup.at_most_s,
        gate=gate,
        footprints=[-(-run.last_footprint // size) * size for run in runs],
    )


@contextlib.asynccontextmanager
async def _front(setup: Setup, arm: Arm, engine_url: str, retriever_url: str, port: int) -> AsyncIterator[Front]:
    """Start what stands in front of the engine, if anything does."""
    log = setup.folder / f"{arm.name}-front.log"
    async with client() as http:
        if arm.way == "chat":
            yield Front(ChatAgent(http, engine_url, retriever_url).ask)
        elif arm.way == "thunderagent":
            if setup.thunderagent is None:
                raise ValueError("ThunderAgent's arms need --thunderagent and a folder that holds its package")
            command = [sys.executable, "-m", "ThunderAgent", "--backends", engine_url, "--host", "127.0.0.1"]
            command += ["--port", str(port), "--log-level", "warning", *arm.router_arguments]
            paths = os.pathsep.join([str(setup.thunderagent), os.environ.get("PYTHONPATH", "")])
            with running(command, port, ready="/health", log=log, environment={"PYTHONPATH": paths}) as router:
                yield Front(ChatAgent(http, router.url, retriever_url, releases=True).ask, router)
        else:
            command = [sys.executable, "-m", "loadtests.agents.gateway", "serve", "--model", NAME]
            command += ["--engine-url", engine_url, "--tokenizer", str(setup.engine.checkpoint)]
            command += ["--retriever", retriever_url, "--port", str(port)]
            environment = gateway_environment(setup, arm)
            with running(command, port, ready="/readyz", log=log, environment=environment) as gateway:
                yield Front(GatewayUser(http, gateway.url).ask, gateway)


def gateway_environment(setup: Setup, arm: Arm) -> dict[str, str]:
    """Return the gateway's settings: those that its operator would give for these runs, and the arm's own."""
    settings = {"engine": arm.engine_kind, **settings_of(setup.trace), **arm.settings}
    environment = {f"SEARCHR1_{name.upper()}": str(value) for name, value in settings.items()}
    return {**environment, CHECKPOINT: str(setup.engine.checkpoint)}


def _told(engine: EngineOptions) -> str:
    return " ".join(replace(engine, checkpoint=Path("DIR")).command("python", 8000, "priority")[3:])


def _cpu_of(engine: Server, front: Front) -> tuple[float, float]:
    return cpu_s(engine.pid), cpu_s(front.process.pid) if front.process is not None else 0.0
