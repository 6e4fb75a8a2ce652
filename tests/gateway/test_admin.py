"""New weights by ``POST /admin/reload``: who may, what is refused, and what a run then says."""

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec
import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import Chunk, SamplingParams, TakesWeights
from searchr1.errors import EngineError, EngineUnavailableError
from searchr1.loop.types import TokenIds
from searchr1.tokenizer import Tokenizer
from tests.gateway.conftest import MODEL, Stage, StageEngine, running_stage
from tests.support.checkpoints import DAMAGES, damaged_copy

ADMIN = {"Authorization": "Bearer root"}


@dataclass
class ReloadableEngine(StageEngine, TakesWeights):
    """Notes what weights it was given. Those in ``broken`` load, and then say nothing that is finite."""

    taken: list[tuple[Path, str]] = field(default_factory=list)
    refusals: list[EngineError] = field(default_factory=list)
    broken: tuple[Path, ...] = ()

    async def take_weights(self, folder: Path, *, version: str) -> None:
        self.taken.append((folder, version))
        if self.refusals:
            raise self.refusals.pop(0)

    async def generate(
        self, prompt_ids: TokenIds, params: SamplingParams, *, session: str, priority: int = 0
    ) -> AsyncGenerator[Chunk, None]:
        async for chunk in super().generate(prompt_ids, params, session=session, priority=priority):
            is_broken = bool(self.taken) and self.taken[-1][0] in self.broken
            yield msgspec.structs.replace(chunk, logprobs=(math.nan,)) if is_broken else chunk


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running_stage(engine=ReloadableEngine(), admin_key="root") as running:
        running.services.default.tokenizer = Tokenizer.load(str(CHECKPOINT))
        running.services.default.served_from = str(CHECKPOINT)
        running.services.default.policy_version = "first"
        yield running


@pytest.fixture
def engine(stage: Stage) -> ReloadableEngine:
    assert isinstance(stage.engine, ReloadableEngine)
    return stage.engine


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return damaged_copy(CHECKPOINT, tmp_path / "other", lambda _: None)


async def reload(stage: Stage, headers: dict[str, str] = ADMIN, **body: object) -> httpx.Response:
    return await stage.client.post("/admin/reload", json=body, headers=headers)


async def test_weights_are_taken_and_runs_tell_their_version(stage: Stage) -> None:
    engine = stage.engine
    assert isinstance(engine, ReloadableEngine)
    answer = await reload(stage, folder=str(CHECKPOINT), version="step-200")
    assert answer.json() == {"model": MODEL, "folder": str(CHECKPOINT), "policy_version": "step-200"}
    assert engine.taken == [(CHECKPOINT, "step-200")]
    run = (await stage.client.post("/v1/research", json={"question": "Mali?"})).json()
    record = (await stage.client.get(f"/v1/research/{run['id']}")).json()
    assert record["trajectory"]["policy_version"] == "step-200"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic root"}])
async def test_only_the_admin_may(stage: Stage, headers: dict[str, str]) -> None:
    assert (await reload(stage, headers, folder=str(CHECKPOINT))).status_code == 401


async def test_one_of_several_workers_takes_no_weights_that_the_others_would_not_know_of(
    stage: Stage, engine: ReloadableEngine
) -> None:
    stage.services.settings = stage.services.settings.model_copy(update={"workers": 2})
    answer = await reload(stage, folder=str(CHECKPOINT))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "several_workers")
    assert engine.taken == []


async def test_without_an_admin_key_nobody_may() -> None:
    async with running_stage(engine=ReloadableEngine(), api_keys="root") as stage:
        answer = await reload(stage, folder=str(CHECKPOINT))
        assert answer.status_code == 403
        assert "SEARCHR1_ADMIN_KEY" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_folder_that_does_not_fit_is_refused_before_the_engine_is_asked(
    stage: Stage, engine: ReloadableEngine, tmp_path: Path, name: str
) -> None:
    folder = damaged_copy(CHECKPOINT, tmp_path / "other", DAMAGES[name])
    answer = await reload(stage, folder=str(folder))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, "folder", "unusable_checkpoint"), error
    assert error["message"].startswith("The folder does not hold weights that can be served: ")
    assert error["message"].isprintable()
    assert len(error["message"]) < 400
    assert engine.taken == []
    assert engine.prompts == []
    assert stage.services.default.policy_version == "first"


@pytest.mark.parametrize("folder", ["/nowhere", "\x00", "x" * 4000, "/etc", "/etc/passwd", "/dev/null", ".", "~", " "])
async def test_what_is_no_checkpoint_folder_is_refused(stage: Stage, engine: ReloadableEngine, folder: str) -> None:
    answer = await reload(stage, folder=folder)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unusable_checkpoint")
    assert engine.taken == []


@pytest.mark.parametrize("fault", ["refused", "broken"])
async def test_weights_that_do_not_work_are_taken_back(
    stage: Stage, engine: ReloadableEngine, other: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    if fault == "refused":
        engine.refusals.append(EngineError("secret words"))
    else:
        engine.broken = (other,)
    answer = await reload(stage, folder=str(other), version="second")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "reload_rolled_back")
    assert "secret" not in answer.text
    assert engine.taken == [(other, "second"), (CHECKPOINT, "first")]
    assert stage.services.default.policy_version == "first"
    assert ("secret words" if fault == "refused" else "nan") in caplog.text
    engine.broken = ()
    assert (await reload(stage, folder=str(other), version="third")).status_code == 200
    assert stage.services.default.served_from == str(other)


async def test_old_weights_that_do_not_come_back_are_told(stage: Stage, engine: ReloadableEngine, other: Path) -> None:
    engine.broken = (other, CHECKPOINT)
    answer = await reload(stage, folder=str(other))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "reload_failed")


async def test_an_engine_that_goes_down_or_is_down_is_told(stage: Stage, engine: ReloadableEngine, other: Path) -> None:
    engine.refusals.append(EngineUnavailableError("secret words"))
    for is_ready in (True, False):
        engine.is_ready = is_ready
        answer = await reload(stage, folder=str(other))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert "secret" not in answer.text
    assert engine.taken == [(other, str(other))]


async def test_a_served_checkpoint_that_is_gone_can_be_compared_with_none(
    stage: Stage, engine: ReloadableEngine, other: Path
) -> None:
    stage.services.default.served_from = "/nowhere"
    answer = await reload(stage, folder=str(other))
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "reload_impossible")
    assert engine.taken == []


async def test_reloads_at_once_come_one_after_the_other(stage: Stage, engine: ReloadableEngine, other: Path) -> None:
    answers = await asyncio.gather(*(reload(stage, folder=str(other), version=str(i)) for i in range(3)))
    assert [answer.status_code for answer in answers] == [200] * 3
    # Each has a connection of its own, and no order.
    assert sorted(version for _, version in engine.taken) == ["0", "1", "2"]
    assert stage.services.default.policy_version == engine.taken[-1][1]


async def test_an_engine_that_runs_elsewhere_is_not_ours_to_reload() -> None:
    async with running_stage(admin_key="root") as stage:
        assert (await reload(stage, folder=str(CHECKPOINT))).status_code == 409
