"""The key of a request: its caller, and its budget of searches."""

from typing import Any

import pytest

from searchr1.gateway.metrics import Metrics
from searchr1.retrieval.config import BudgetConfig
from searchr1.retrieval.resilience.budget import Budgets
from searchr1.retrieval.resilience.counters import MemoryCounters

from .conftest import Stage, running_stage

KEYS: dict[str, Any] = {"api_keys": "plain", "tenant_keys": {"acme": ["acme-1", "acme-2"], "beta": ["beta-1"]}}


def budgets(**limits: int) -> Budgets:
    return Budgets(MemoryCounters(), BudgetConfig(**limits), observer=Metrics().search)  # type: ignore[arg-type]


async def steps_of(stage: Stage, key: str) -> list[dict[str, Any]]:
    answer = await stage.client.post(
        "/v1/research", json={"question": "Mali?"}, headers={"Authorization": f"Bearer {key}"}
    )
    assert answer.status_code == 200, answer.text
    steps: list[dict[str, Any]] = answer.json()["steps"]
    return steps


async def searched(stage: Stage, key: str) -> bool:
    error = (await steps_of(stage, key))[0]["search_error"]
    assert error is None or error["code"] == "budget"
    return error is None


async def test_keys_of_tenants_are_keys_and_others_are_not() -> None:
    async with running_stage(**KEYS) as stage:
        for key in ("plain", "acme-1", "beta-1"):
            assert await searched(stage, key)
        refused = await stage.client.post(
            "/v1/research", json={"question": "Mali?"}, headers={"Authorization": "Bearer acme"}
        )
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"


async def test_a_key_that_has_spent_its_searches_gets_an_answer_without_them() -> None:
    async with running_stage(budgets=budgets(per_key=1), **KEYS) as stage:
        assert await searched(stage, "acme-1")
        assert not await searched(stage, "acme-1")
        assert await searched(stage, "acme-2")
        assert len(stage.retriever.queries) == 2


async def test_a_tenants_keys_share_its_budget_and_no_other_tenants() -> None:
    async with running_stage(budgets=budgets(per_tenant=1), **KEYS) as stage:
        assert await searched(stage, "acme-1")
        assert not await searched(stage, "acme-2")
        assert await searched(stage, "beta-1")


async def test_cache_only_calls_no_provider() -> None:
    async with running_stage() as stage:
        answer = await stage.client.post("/v1/research", json={"question": "Mali?", "cache": "only"})
        assert answer.json()["steps"][0]["search_error"]["code"] == "not_cached"
        chat = {
            "model": "searchr1-test",
            "messages": [{"role": "user", "content": "Mali?"}],
            "web_search_options": {"external_web_access": False},
        }
        chat["model"] = stage.services.settings.public_name
        assert (await stage.client.post("/v1/chat/completions", json=chat)).status_code == 200
        assert stage.retriever.queries == []


async def test_another_cache_mode_is_refused(stage: Stage) -> None:
    answer = await stage.client.post("/v1/research", json={"question": "Mali?", "cache": "never"})
    assert answer.status_code == 400
    assert "cache" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (b"Bearer plain", None),
        (b"bearer plain", None),
        (b"BEARER   plain", None),
        (b"Bearer plain extra", "invalid_api_key"),
        (b"Bearer pl\xc3\xa4in", "invalid_api_key"),
        (b"Bearer pl\xe4in", "invalid_api_key"),
        (b"Bearer", "missing_api_key"),
        (b"Basic plain", "missing_api_key"),
        (b"plain", "missing_api_key"),
        (b"", "missing_api_key"),
        (None, "missing_api_key"),
    ],
)
async def test_the_forms_of_a_key(header: bytes | None, code: str | None) -> None:
    async with running_stage(**KEYS) as stage:
        headers = {} if header is None else {"authorization": header}
        answer = await stage.client.get("/v1/models", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == (200 if code is None else 401)
    if code is not None:
        assert answer.json()["error"]["code"] == code
