"""New weights by ``POST /admin/reload``: who may, what is refused, and what a run then says."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from searchr1.demo.bundle import CHECKPOINT
from searchr1.engines.base import TakesWeights
from searchr1.errors import EngineError, EngineUnavailableError
from searchr1.tokenizer import Tokenizer
from tests.gateway.conftest import Stage, StageEngine, running_stage

ADMIN = {"Authorization": "Bearer root"}


@dataclass
class ReloadableEngine(StageEngine, TakesWeights):
    """Notes what weights it was given."""

    taken: list[tuple[Path, str]] = field(default_factory=list)
    refusal: EngineError | None = None

    async def take_weights(self, folder: Path, *, version: str) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken.append((folder, version))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with running_stage(engine=ReloadableEngine(), admin_key="root") as running:
        running.services.tokenizer = Tokenizer.load(str(CHECKPOINT))
        yield running


async def reload(stage: Stage, headers: dict[str, str] = ADMIN, **body: object) -> httpx.Response:
    return await stage.client.post("/admin/reload", json=body, headers=headers)


async def test_weights_are_taken_and_runs_tell_their_version(stage: Stage) -> None:
    engine = stage.engine
    assert isinstance(engine, ReloadableEngine)
    answer = await reload(stage, folder=str(CHECKPOINT), version="step-200")
    assert answer.json() == {"folder": str(CHECKPOINT), "policy_version": "step-200"}
    assert engine.taken == [(CHECKPOINT, "step-200")]
    run = (await stage.client.post("/v1/research", json={"question": "Mali?"})).json()
    record = (await stage.client.get(f"/v1/research/{run['id']}")).json()
    assert record["trajectory"]["policy_version"] == "step-200"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic root"}])
async def test_only_the_admin_may(stage: Stage, headers: dict[str, str]) -> None:
    assert (await reload(stage, headers, folder=str(CHECKPOINT))).status_code == 401


async def test_without_an_admin_key_nobody_may() -> None:
    async with running_stage(engine=ReloadableEngine(), api_keys="root") as stage:
        answer = await reload(stage, folder=str(CHECKPOINT))
        assert answer.status_code == 403
        assert "SEARCHR1_ADMIN_KEY" in answer.json()["error"]["message"]


async def test_folders_that_do_not_fit_are_refused_before_the_engine_is_asked(stage: Stage, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(CHECKPOINT, other)
    tokenizer = other / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text("utf-8").replace('"Ġthe"', '"Ġthx"'), "utf-8")
    for folder in (tmp_path / "nothing", tmp_path, other, "\x00"):
        answer = await reload(stage, folder=str(folder))
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "folder"
    assert isinstance(stage.engine, ReloadableEngine)
    assert stage.engine.taken == []


@pytest.mark.parametrize(
    ("error", "status"), [(EngineError("does not fit"), 502), (EngineUnavailableError("down"), 503)]
)
async def test_an_engine_that_refuses_says_so(stage: Stage, error: EngineError, status: int) -> None:
    assert isinstance(stage.engine, ReloadableEngine)
    stage.engine.refusal = error
    answer = await reload(stage, folder=str(CHECKPOINT))
    assert answer.status_code == status
    assert "did not take the new weights" in answer.json()["error"]["message"]
    assert str(error) not in answer.text


async def test_an_engine_that_runs_elsewhere_is_not_ours_to_reload() -> None:
    async with running_stage(admin_key="root") as stage:
        assert (await reload(stage, folder=str(CHECKPOINT))).status_code == 409
