"""Tenants side by side on one gateway: what one does says nothing to another, whichever way it asks."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.gateway.runs.hub import scope_of
from searchr1.identity import Caller, KeyLimits
from searchr1.keyring.key_file import KeyFile
from searchr1.keyring.stored_key import StoredLimits, made_key
from tests.gateway.conftest import MODEL, Stage, running_stage

NOW = 1_800_000_000
ASK = {"question": "Mali?"}


@dataclass
class Keys:
    """The texts of two keys of one tenant, of another's, of two without, and the settings with two more."""

    texts: Mapping[str, str]
    settings: dict[str, Any]

    def headers(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.texts[name]}"}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    store, texts = KeyFile(tmp_path / "keys.json"), {"plain": "a-plain-key-of-the-settings", "gamma": "a-key-of-gamma"}
    for name, tenant in (("acme", "acme"), ("acme2", "acme"), ("beta", "beta"), ("alone", ""), ("alone2", "")):
        texts[name], key = made_key(name, now=NOW, tenant=tenant)
        asyncio.run(store.add(key))
    own = {"api_keys": texts["plain"], "tenant_keys": {"gamma": [texts["gamma"]]}}
    return Keys(texts, {"keys_file": tmp_path / "keys.json", **own})


def strangers_to(name: str) -> list[str]:
    own = {"acme", "acme2"} if name.startswith("acme") else {name}
    return sorted({"acme", "acme2", "beta", "alone", "alone2", "plain", "gamma"} - own)


async def run_of(stage: Stage, keys: Keys, name: str, **more: Any) -> str:
    answer = await stage.client.post("/v1/research", json=ASK, headers={**keys.headers(name), **more})
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-run-id"])


@pytest.mark.parametrize("owner", ["acme", "alone", "plain", "gamma"])
async def test_nobody_sees_the_runs_of_another(keys: Keys, owner: str) -> None:
    async with running_stage(**keys.settings) as stage:
        run_id = await run_of(stage, keys, owner)
        response = await stage.client.post(
            "/v1/responses", json={"model": MODEL, "input": "Mali?"}, headers=keys.headers(owner)
        )
        of_response = f"/v1/responses/{response.json()['id']}"
        tries = [
            ("GET", f"/v1/research/{run_id}", None),
            ("GET", f"/v1/research/{run_id}/events", None),
            ("POST", f"/v1/research/{run_id}/cancel", None),
            ("DELETE", f"/v1/research/{run_id}", None),
            ("POST", "/v1/research/replay", {"run_id": run_id}),
            ("POST", "/v1/research", {**ASK, "previous_run_id": run_id}),
            ("GET", f"/v1/research?after={run_id}", None),
            ("GET", of_response, None),
            ("GET", f"{of_response}/input_items", None),
            ("POST", f"{of_response}/cancel", None),
            ("DELETE", of_response, None),
            ("POST", "/v1/responses", {"model": MODEL, "input": "And?", "previous_response_id": response.json()["id"]}),
        ]
        for other in strangers_to(owner):
            for method, path, body in tries:
                answer = await stage.client.request(method, path, json=body, headers=keys.headers(other))
                assert answer.status_code in (400, 404), (other, method, path, answer.text)
                assert "Mali" not in answer.text
            listed = await stage.client.get("/v1/research", headers=keys.headers(other))
            assert listed.json()["data"] == []
        assert (await stage.client.get(f"/v1/research/{run_id}", headers=keys.headers(owner))).status_code == 200
        assert (await stage.client.get(of_response, headers=keys.headers(owner))).status_code == 200


async def test_keys_of_one_tenant_share_its_runs(keys: Keys) -> None:
    async with running_stage(**keys.settings) as stage:
        run_id = await run_of(stage, keys, "acme")
        found = await stage.client.get(f"/v1/research/{run_id}", headers=keys.headers("acme2"))
        assert found.status_code == 200


async def test_an_idempotency_key_is_its_callers_own(keys: Keys) -> None:
    async with running_stage(**keys.settings) as stage:
        names = ("acme", "beta", "alone", "alone2", "plain")
        runs = {await run_of(stage, keys, name, **{"Idempotency-Key": "the-same"}) for name in names}
        assert len(runs) == len(names)


async def test_engines_are_told_of_no_common_session_or_salt(keys: Keys) -> None:
    async with running_stage(**keys.settings) as stage:
        salts: dict[str, str | None] = {}
        for name in keys.texts:
            await run_of(stage, keys, name)
            salts[name] = stage.engine.params[-1].cache_salt
        assert salts["acme"] == salts["acme2"]
        assert len(set(salts.values())) == len(keys.texts) - 1
        assert None not in salts.values()


CALLERS = st.builds(
    Caller,
    tenant=st.text(max_size=8),
    key_id=st.text(min_size=1, max_size=8),
    limits=st.builds(KeyLimits, requests_per_minute=st.none() | st.integers(1, 9)),
)


@given(CALLERS, CALLERS)
def test_who_shares_runs_is_the_tenant_or_else_the_key(one: Caller, other: Caller) -> None:
    are_one = one.tenant == other.tenant and (bool(one.tenant) or one.key_id == other.key_id)
    assert (scope_of(one) == scope_of(other)) == are_one


async def test_a_key_at_its_limit_stands_in_nobodys_way(tmp_path: Path) -> None:
    store = KeyFile(tmp_path / "keys.json")
    limits = StoredLimits(requests_per_minute=1)
    (text, key), (other, another) = (made_key(name, now=NOW, tenant="acme", limits=limits) for name in ("one", "two"))
    await store.add(key)
    await store.add(another)
    async with running_stage(keys_file=tmp_path / "keys.json") as stage:
        answers = [
            (await stage.client.post("/v1/research", json=ASK, headers={"Authorization": f"Bearer {one}"})).status_code
            for one in (text, text, other)
        ]
    assert answers == [200, 429, 200]
