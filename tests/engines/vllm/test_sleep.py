"""An engine of our own that sleeps and wakes, without vLLM: in which order it asks vLLM for what."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from searchr1.engines.base import SamplingParams
from searchr1.engines.vllm.args import VllmInProcessConfig
from searchr1.engines.vllm.in_process import VllmInProcessEngine
from searchr1.errors import EngineError, EngineUnavailableError
from tests.engines.helpers import complete
from tests.engines.vllm.test_in_process import FakeLlm, stub_vllm  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("stub_vllm")


@dataclass
class SleepyLlm(FakeLlm):
    """The part of ``AsyncLLM`` that sleeping and new weights touch."""

    asked: list[str] = field(default_factory=list)
    can_sleep: bool = True
    takes: bool = True

    async def sleep(self, level: int) -> None:
        if not self.can_sleep:
            raise ValueError("Sleep mode is not enabled.")
        self.asked.append(f"sleep {level}")

    async def wake_up(self, tags: list[str]) -> bool:
        self.asked.append(f"wake {' '.join(tags)}")
        return True

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        self.asked.append(f"pause {mode}")

    async def resume_generation(self) -> None:
        self.asked.append("resume")

    async def collective_rpc(self, method: str, args: tuple[str]) -> None:
        self.asked.append(method)
        if not self.takes:
            raise RuntimeError("shapes differ")

    async def update_weight_version(self, version: str) -> None:
        self.asked.append(f"version {version}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").touch()
    return tmp_path


def engine_of(llm: SleepyLlm, monkeypatch: pytest.MonkeyPatch) -> VllmInProcessEngine:
    async def build() -> Any:
        return llm

    engine = VllmInProcessEngine(VllmInProcessConfig(model="some/model", restart_backoff_s=0.0))
    monkeypatch.setattr(engine, "_build", build)
    return engine


async def test_it_sleeps_until_it_gets_weights(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = SleepyLlm()
    async with engine_of(llm, monkeypatch) as engine:
        await engine.sleep()
        with pytest.raises(EngineUnavailableError, match="sleeps until it gets weights"):
            await complete(engine, SamplingParams(max_tokens=1))
        await engine.take_weights(folder, version="1")
        assert await complete(engine, SamplingParams(max_tokens=1))
        await engine.take_weights(folder, version="2")
    asleep = ["sleep 2", "wake weights", "take_weights", "version 1", "wake kv_cache"]
    assert llm.asked == [*asleep, "pause keep", "take_weights", "version 2", "resume"]


async def test_weights_that_do_not_fit_leave_it_asleep_for_it_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = SleepyLlm(takes=False)
    async with engine_of(llm, monkeypatch) as engine:
        await engine.sleep()
        with pytest.raises(EngineError, match="shapes differ"):
            await engine.take_weights(folder, version="1")
        with pytest.raises(EngineUnavailableError, match="sleeps until it gets weights"):
            await complete(engine, SamplingParams(max_tokens=1))
        llm.takes = True
        await engine.take_weights(folder, version="1")
        assert await complete(engine, SamplingParams(max_tokens=1))
    failed = ["sleep 2", "wake weights", "take_weights", "sleep 2"]
    assert llm.asked == [*failed, "wake weights", "take_weights", "version 1", "wake kv_cache"]


async def test_an_engine_that_was_not_started_to_sleep_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with engine_of(SleepyLlm(can_sleep=False), monkeypatch) as engine:
        with pytest.raises(EngineError, match="can't sleep: Sleep mode is not enabled"):
            await engine.sleep()
        assert await complete(engine, SamplingParams(max_tokens=1))
