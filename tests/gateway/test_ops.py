"""Probes, metrics, and the page."""

from .conftest import MODEL, Stage, StageEngine, eventually, running_stage


async def test_ready_follows_the_engine() -> None:
    engine = StageEngine()
    async with running_stage(engine=engine) as stage:
        assert (await stage.client.get("/readyz")).status_code == 200
        engine.is_ready = False
        stage.services.readiness.engines[MODEL].doubt()
        await eventually(lambda: not stage.services.readiness.engines[MODEL].part.ok)
        assert (await stage.client.get("/readyz")).status_code == 503
        assert (await stage.client.get("/healthz")).status_code == 200


async def test_metrics_count_what_happened(stage: Stage) -> None:
    await stage.client.post("/v1/research", json={"question": "Mali?"})
    text = (await stage.client.get("/metrics")).text
    assert 'searchr1_runs_total{model="test-model",status="completed"} 1.0' in text
    assert 'searchr1_searches_total{cache="miss",outcome="found"} 1.0' in text
    assert "searchr1_runs_running 0.0" in text
    assert 'searchr1_tokens_total{kind="observation",model="test-model"}' in text


async def test_the_page_and_its_files_are_served_with_a_strict_policy(stage: Stage) -> None:
    page = await stage.client.get("/")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("app.js", "style.css"):
        assert name in page.text
        assert (await stage.client.get(f"/assets/{name}")).status_code == 200
    assert (await stage.client.get("/assets/../app.py")).status_code == 404
    assert (await stage.client.get("/assets/%2e%2e/app.py")).status_code == 404


async def test_pages_of_other_origins_may_call_only_where_they_are_named() -> None:
    asks = {"origin": "https://app.example", "access-control-request-method": "POST"}
    async with running_stage() as closed, running_stage(cors_origins="https://app.example, https://b.example") as open_:
        refused = await closed.client.options("/v1/research", headers=asks)
        assert "access-control-allow-origin" not in refused.headers
        allowed = await open_.client.options("/v1/research", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://app.example"
        other = await open_.client.options("/v1/research", headers={**asks, "origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        run = await open_.client.post("/v1/research", json={"question": "Mali?"}, headers=asks)
        assert "x-run-id" in run.headers["access-control-expose-headers"]
