"""Readiness: what probes are told of engine, store and providers, what it costs, and what the log says of changes."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpx
import pytest

from searchr1.engines.base import HEALTH_REASONS, EngineHealth
from searchr1.gateway import app, readiness
from searchr1.gateway.metrics import Metrics
from searchr1.gateway.readiness import Part, Readiness
from searchr1.gateway.runs.store.base import Message, RunStoreError
from searchr1.gateway.runs.store.memory import MemoryRunStore
from searchr1.gateway.services import Services
from searchr1.settings import Settings
from tests.gateway.conftest import MODEL, Stage, StageEngine, eventually, running_stage

SECRET = "f5-sentinel"


class WatchedEngine(StageEngine):
    """Says what the test has set, and counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.said = EngineHealth(ok=True)
        self.error: Exception | None = None  # type: ignore[assignment]
        self.num_asked = 0

    async def health(self) -> EngineHealth:
        self.num_asked += 1
        if self.error is not None:
            raise self.error
        return self.said


async def test_probes_cost_the_engine_nothing() -> None:
    engine = WatchedEngine()
    async with running_stage(engine=engine) as stage:
        before = engine.num_asked
        answers = await asyncio.gather(*(stage.client.get("/readyz") for _ in range(200)))
        assert {answer.status_code for answer in answers} == {200}
        assert engine.num_asked - before < 20, "only the watch asks, every other second"


@pytest.mark.parametrize("reason", sorted(HEALTH_REASONS))
async def test_an_engine_that_is_not_well_is_told_by_its_reason_and_logged_once(
    reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = WatchedEngine()
    engine.said = EngineHealth(ok=False, reason=reason, detail=f"http://{SECRET}:8000")
    async with running_stage(engine=engine) as stage:
        asked = engine.num_asked
        await eventually(lambda: engine.num_asked > asked + 1)
        probe = await stage.client.get("/readyz")
        assert probe.status_code == 503
        assert probe.json() == {
            "status": "not_ready",
            "reason": reason,
            "engine": reason,
            "retriever": "ok",
            "store": "ok",
            "model": MODEL,
        }
        assert (await stage.client.get("/healthz")).status_code == 200
        metrics = (await stage.client.get("/metrics")).text
        assert f'searchr1_engine_up{{model="{MODEL}"}} 0.0' in metrics
        assert f'searchr1_engine_failures_total{{model="{MODEL}",reason="{reason}"}} 1.0' in metrics
        engine.said = EngineHealth(ok=True)
        await eventually(lambda: stage.services.readiness.engines[MODEL].part.ok)
        assert (await stage.client.get("/readyz")).json()["status"] == "ready"
    lines = [record.getMessage() for record in caplog.records if record.name == readiness.__name__]
    words = reason.replace("_", " ")
    assert lines[0] == f"engine {words}: http://{SECRET}:8000"
    assert [line.rpartition(" after ")[0] for line in lines[1:]] == ["engine is back"]


async def test_an_engine_whose_health_is_a_bug_is_not_well_and_is_asked_again() -> None:
    engine = WatchedEngine()
    engine.error = ValueError("a line break in a header")
    async with running_stage(engine=engine) as stage:
        assert (await stage.client.get("/readyz")).json()["reason"] == "unhealthy"
        engine.error = None
        await eventually(lambda: stage.services.readiness.engines[MODEL].part.ok)


async def test_a_run_that_finds_the_engine_gone_has_it_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "ASK_EVERY_S", 1e6)
    engine = WatchedEngine()
    async with Readiness({MODEL: engine}, Metrics()) as watched:
        engine.said = EngineHealth(ok=False, reason="unreachable")
        watched.engines[MODEL].doubt()
        await eventually(lambda: not watched.engines[MODEL].part.ok)


def test_changes_alone_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    part = Part("engine")
    for ok, reason in [(True, ""), (False, "stalled"), (False, "stalled"), (False, "stopped"), (True, ""), (True, "")]:
        part.note(ok=ok, reason=reason)
    assert [record.getMessage() for record in caplog.records] == [
        "engine stalled",
        "engine stopped",
        "engine is back after 0 s",
    ]


class FailingStore(MemoryRunStore):
    """Does not answer while ``down``."""

    down = True

    async def heartbeat(self, replica: str, wait_s: float, sorts: Sequence[str] = ()) -> list[Message]:
        if self.down:
            raise RunStoreError("the run store does not answer (WRONGPASS)") from ConnectionError(f"redis://{SECRET}")
        return await super().heartbeat(replica, 0.01)


async def test_a_store_that_is_down_is_told_and_logged_with_its_cause(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    store = FailingStore(ttl_s=1000, max_bytes=2**20)
    monkeypatch.setattr(app, "open_run_store", lambda _: store)
    async with running_stage() as stage:
        await eventually(lambda: not stage.services.readiness.store.ok)
        probe = await stage.client.get("/readyz")
        assert (probe.status_code, probe.json()["store"]) == (200, "unreachable")
        assert "searchr1_run_store_up 0.0" in (await stage.client.get("/metrics")).text
        store.down = False
        await eventually(lambda: stage.services.readiness.store.ok)
    lines = [record.getMessage() for record in caplog.records if record.name == readiness.__name__]
    assert any(line.startswith("run store unreachable: the run store does not answer (WRONGPASS)") for line in lines)
    assert any(line.startswith("run store is back") for line in lines)


async def test_a_provider_in_trouble_is_told_and_its_breaker_logged(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    search = stage.services.metrics.search
    told = []
    for step in ("timeout", "open", "open", "half_open", "found", "closed"):
        if step in ("open", "half_open", "closed"):
            search.breaker("tavily", step)  # type: ignore[arg-type]
        else:
            search.attempt("tavily", step, 0.1)
        probe = await stage.client.get("/readyz")
        assert probe.status_code == 200
        told.append(probe.json()["retriever"])
    assert told == ["tavily: timeout", *["tavily: circuit_open"] * 4, "ok"]
    lines = [record.getMessage() for record in caplog.records if "provider" in record.getMessage()]
    assert lines == ["search provider tavily is not called for a while: timeout", "search provider tavily is back"]


async def test_a_server_that_starts_answers_probes_and_turns_the_rest_away() -> None:
    opened = asyncio.Event()

    @asynccontextmanager
    async def open_services(_: Settings) -> AsyncIterator[Services]:
        await opened.wait()
        raise RuntimeError("not in this test")
        yield

    settings = Settings.model_validate({"model": MODEL, "retriever": "index:none"})
    starting = app.create_app(settings, open_services=open_services)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(starting), base_url="http://localhost") as client:
        for path in [*starting.openapi()["paths"], "/page.json", "/docs", "/openapi.json", "/mcp"]:
            assert (await client.get(path)).status_code in (200, 401, 404, 405, 503), path
        assert (await client.get("/healthz")).status_code == 200
        probe = await client.get("/readyz")
        assert (probe.status_code, probe.json()["reason"]) == (503, "starting")
        assert (await client.get("/")).status_code == 200
        for method, path in [
            ("POST", "/v1/research"),
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/responses"),
            ("GET", "/v1/models"),
            ("GET", "/v1/research/run_1"),
            ("POST", "/admin/reload"),
            ("GET", "/metrics"),
            ("GET", "/page.json"),
        ]:
            early = await client.request(method, path, content=b"not even JSON")
            assert early.status_code == 503, path
            assert early.json()["error"]["code"] == "starting"
            assert int(early.headers["retry-after"]) >= 5
