"""Servers without API keys: what their log says, who may list runs, and whom the ``Host`` header shuts out."""

import logging
import re
from typing import Any

import pytest
from pydantic import SecretStr

from searchr1.gateway.access.api_keys import ApiKeys
from searchr1.gateway.access.auth import is_admin
from searchr1.gateway.access.exposure import check_exposure, log_exposure
from searchr1.settings import Settings
from searchr1.sockets import is_loopback
from tests.gateway.conftest import running_stage

ADMIN = "an-admin-key-of-the-tests"


def settings(**given: Any) -> Settings:
    return Settings(**{"model": "m", "retriever": "index:none", **given})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ["open to this machine"]),
        ({"host": "0.0.0.0", "open": True}, [r"open to everyone who reaches 0\.0\.0\.0"]),
        ({"host": "localhost", "open": True}, ["open to this machine"]),
        ({"api_keys": "k" * 16}, []),
        ({"api_keys": "short,k2,kkkkkkkkkkkkkkkk"}, ["2 of the API keys can be guessed"]),
        ({"tenant_keys": {"a": ["short"], "b": ["k" * 20]}}, ["1 of the API keys"]),
        ({"admin_key": "root"}, ["open to this machine", "1 of the admin keys"]),
    ],
)
def test_the_log_says_who_may_call(given: dict[str, Any], said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        log_exposure(settings(**given))
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("searchr1")]
    assert len(lines) == len(said)
    for line, part in zip(lines, said, strict=True):
        assert re.search(part, line)
        assert not any(key in line for key in ("short", "root", "kkkk"))


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "[::]", "::ffff:10.0.0.1", "10.1.2.3", "example.org", "0", "127.1"]
)
def test_other_hosts_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


def test_keys_close_any_host() -> None:
    check_exposure(settings(host="0.0.0.0", tenant_keys={"a": ["k"]}), {"SEARCHR1_API_KEY": "x"})


OWN_HOSTS = [
    "localhost",
    "LocalHost:8000",
    "localhost.:1",
    "app.localhost:9",
    "127.0.0.1",
    "127.9.9.9:65535",
    "[::1]",
    "[::1]:8000",
    "[0:0:0:0:0:0:0:1]:1",
    "[::ffff:127.0.0.1]",
]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "evil-localhost",
    "127.0.0.1.evil.example",
    "127.0.0.1@evil.example",
    "localhost:80:80",
    "localhost/evil",
    "0.0.0.0",
    "0.0.0.0:8000",
    "[::]",
    "10.0.0.1",
    "169.254.169.254",
    "2130706433",
    "0x7f.1",
    "127.1",
    "[fe80::1]",
    "[::1",
    "",
    "localhost,evil.example",
]


async def test_pages_of_other_sites_do_not_reach_a_server_that_trusts_its_machine() -> None:
    async with running_stage() as stage:
        for host in OWN_HOSTS:
            assert (await stage.client.get("/healthz", headers={"host": host})).status_code == 200, host
        for host in FOREIGN_HOSTS:
            for method, path in (("GET", "/v1/models"), ("POST", "/v1/research"), ("GET", "/"), ("GET", "/healthz")):
                answer = await stage.client.request(method, path, headers={"host": host})
                assert (answer.status_code, answer.json()["error"]["code"]) == (421, "misdirected_request"), host
                assert "x-request-id" in answer.headers


@pytest.mark.parametrize("given", [{"api_keys": "k"}, {"open": True}, {"host": "0.0.0.0", "open": True}])
async def test_servers_that_do_not_trust_it_take_any_host(given: dict[str, Any]) -> None:
    async with running_stage(**given) as stage:
        assert (await stage.client.get("/healthz", headers={"host": "searchr1.example"})).status_code == 200


async def test_the_name_that_the_server_listens_on_is_its_own() -> None:
    async with running_stage(host="localhost") as stage:
        assert (await stage.client.get("/healthz", headers={"host": "LOCALHOST:1"})).status_code == 200


async def test_runs_without_keys_are_listed_to_the_admin_alone() -> None:
    async with running_stage(admin_key=ADMIN) as stage:
        asked = await stage.client.post("/v1/research", json={"question": "Mali?"})
        run_id = asked.headers["x-run-id"]
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer"}, {"x-api-key": ADMIN}):
            refused = await stage.client.get("/v1/research", headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
            assert run_id not in refused.text
        listed = await stage.client.get("/v1/research", headers={"Authorization": f"Bearer {ADMIN}"})
        assert [run["id"] for run in listed.json()["data"]] == [run_id]
        assert (await stage.client.get(f"/v1/research/{run_id}")).status_code == 200
        assert (await stage.client.delete(f"/v1/research/{run_id}")).status_code == 200


async def test_with_keys_the_admin_key_is_no_api_key() -> None:
    async with running_stage(admin_key=ADMIN, api_keys="k") as stage:
        answer = await stage.client.get("/v1/research", headers={"Authorization": f"Bearer {ADMIN}"})
        assert answer.status_code == 401


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "bearer\t", "Basic x", ADMIN, f"Token {ADMIN}"])
def test_nothing_matches_no_admin_key(header: str | None) -> None:
    assert not is_admin(settings(), header)
    assert not is_admin(settings(admin_key=ADMIN), header)
    emptied = settings(admin_key=ADMIN).model_copy(update={"admin_key": SecretStr("")})
    assert not is_admin(emptied, header)


def test_a_key_has_the_same_id_wherever_it_is_configured_and_none_that_is_quickly_tried() -> None:
    ids = {
        ApiKeys(settings(api_keys=keys)).caller("Bearer first").key_id
        for keys in ("first", "other,first", "first,first,x")
    }
    assert len(ids) == 1
    other = ApiKeys(settings(api_keys="first,other")).caller("Bearer other")
    assert other.key_id not in ids
    assert other.former_key_id not in other.key_id
    assert "other" not in repr(other)


def test_no_secret_stands_in_the_representation_of_settings() -> None:
    secret = "s3cret-s3cret-s3cret"
    given = settings(
        engine_url=f"http://user:{secret}@engine:8000",
        retriever=f"http://user:{secret}@host/retrieve",
        redis_url=f"redis://:{secret}@redis",
        api_keys=secret,
        admin_key=f"{secret}2",
        engine_api_key=secret,
        tenant_keys={"a": [f"{secret}3"]},
        provider_keys={"exa": secret},
    )
    for thing in (given, given.search(), given.engine_config()):
        assert secret not in repr(thing) + str(thing)
