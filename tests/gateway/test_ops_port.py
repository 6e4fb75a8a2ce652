"""The operators' port: what it serves, and what the clients' port then no longer does."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import uvicorn
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from loadtests.processes import free_port, running, searchr1
from searchr1.demo.bundle import CHECKPOINT
from searchr1.gateway.app import create_app
from searchr1.gateway.bounds import http_bounds
from searchr1.gateway.ops_port import SeparatePorts, ops_config
from searchr1.http_server.serving import server_config
from searchr1.settings import Settings
from tests.gateway.conftest import eventually, running_stage
from tests.support.redis_server import RedisServer

GIVEN: dict[str, Any] = {"model": "m", "retriever": "index:none"}
OURS = ("/metrics", "/admin/keys", "/admin/replicas", "/docs")
"""Of the operators alone."""
EVERYONES = ("/healthz", "/readyz", "/health", "/ping", "/version", "/openapi.json", "/assets/docs.js")
CLIENTS = ("/v1/models", "/v1/research", "/", "/page.json")


@asynccontextmanager
async def both_ports(**settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """Serve an app that is still opening on two ports: clients of the clients' and of the operators'."""
    config = Settings(**GIVEN, ops_port=0, **settings)
    app = create_app(config)
    configs = (server_config(app, http_bounds(config), lifespan="off", log_config=None), ops_config(app, config))
    servers = [uvicorn.Server(one) for one in configs]
    for one in configs:
        one.port = 0
    serving = [asyncio.ensure_future(server.serve()) for server in servers]
    try:
        while not all(server.started for server in servers):  # noqa: ASYNC110 (uvicorn has no event to wait for)
            await asyncio.sleep(0.01)
        ports = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
        first, second = (httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) for port in ports)
        async with first, second:
            yield first, second
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*serving)


async def test_each_port_serves_its_own_and_both_the_probes() -> None:
    async with both_ports() as (clients, operators):
        for path in OURS:
            assert (await clients.get(path)).status_code == 404, path
            assert (await operators.get(path)).status_code != 404, path
        for path in CLIENTS:
            assert (await clients.get(path)).status_code != 404, path
            assert (await operators.get(path)).status_code == 404, path
        for path in EVERYONES:
            for one in (clients, operators):
                assert (await one.get(path)).status_code != 404, path


@pytest.mark.parametrize(
    "path", ["//metrics", "/metrics/", "/%6detrics", "/admin//keys", "/docs/", "/x/../metrics", "/admin", "/metrics/x"]
)
async def test_no_way_of_writing_a_path_leads_past_the_port(path: str) -> None:
    async with both_ports() as (clients, _):
        for headers in ({}, {"host": "localhost/healthz?"}, {"host": "127.0.0.1", "x-forwarded-port": "9"}):
            answer = await clients.get(str(clients.base_url).rstrip("/") + path, headers=headers)
            assert answer.status_code in (404, 421)
            assert "searchr1_" not in answer.text


@pytest.mark.parametrize("control", ["%0A", "%0D", "%00", "%09", "%7F", "%0a%0a", "%0A/", "%C2%85"])
async def test_a_path_with_a_control_character_leads_nowhere(control: str) -> None:
    async with running_stage(ops_port=9) as stage:
        for path in (*OURS, *EVERYONES, *CLIENTS):
            answer = await stage.client.get(path + control)
            assert answer.status_code == 404, (path, answer.text)
            assert answer.json()["error"]["code"] == "not_found"


@pytest.mark.parametrize("path", ["/metrics\n", "/metr\rics", "/admin\x00", "/admin\n/keys", "/docs\x7f"])
async def test_the_separation_of_ports_is_deceived_by_no_control_character(path: str) -> None:
    async def reached(scope: Scope, receive: Receive, send: Send) -> None:
        raise AssertionError("it was let through")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(SeparatePorts(reached)), base_url="http://h") as client:
        assert (await client.get(quote(path))).status_code == 404


async def test_a_hidden_path_is_answered_as_one_that_is_not_there() -> None:
    async with both_ports() as (clients, _):
        answers = [await clients.request(method, path) for method in ("GET", "POST") for path in ("/metrics", "/nope")]
    assert [answer.status_code for answer in answers] == [404] * 4
    hidden, absent = (answers[number].json()["error"] for number in (0, 1))
    assert hidden["message"] == "There is nothing at GET /metrics."
    assert absent == {**hidden, "message": "There is nothing at GET /nope."}
    assert set(answers[0].headers) == set(answers[1].headers)


async def test_a_foreign_host_is_refused_but_on_an_address_that_is_not_this_machine_alone() -> None:
    foreign = {"host": "prometheus.example"}
    async with both_ports() as (clients, operators):
        for one in (clients, operators):
            assert (await one.get("/healthz", headers=foreign)).status_code == 421
    async with both_ports(ops_host="0.0.0.0") as (clients, operators):
        assert (await clients.get("/healthz", headers=foreign)).status_code == 421
        assert (await operators.get("/healthz", headers=foreign)).status_code == 200


async def test_without_a_port_of_theirs_all_is_on_one() -> None:
    app = create_app(Settings(**GIVEN))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in (*OURS, *EVERYONES, *CLIENTS):
            assert (await client.get(path)).status_code != 404, path


@pytest.mark.parametrize(
    ("given", "told"),
    [({"ops_port": 8000}, "SEARCHR1_OPS_PORT is 8000"), ({"ops_host": "0.0.0.0"}, "without SEARCHR1_OPS_PORT")],
)
def test_settings_that_can_not_be_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Settings(**GIVEN, **given)


@pytest.mark.process
async def test_the_command_serves_both(tmp_path: Path) -> None:
    script, port, ops_port = tmp_path / "script.txt", free_port(), free_port()
    write(script, "<answer> Bamako </answer>\n")
    settings = {"MODEL": script, "ENGINE": "scripted", "TOKENIZER": CHECKPOINT, "RETRIEVER": "http://127.0.0.1:9/r"}
    environment = {f"SEARCHR1_{name}": str(value) for name, value in {**settings, "OPS_PORT": ops_port}.items()}
    log = tmp_path / "log"
    command = running(
        searchr1("serve", "--port", str(port)),
        port,
        ready="/readyz",
        log=log,
        environment=environment,
        timeout_s=120,
    )
    server = await asyncio.to_thread(command.__enter__)
    try:
        async with httpx.AsyncClient(timeout=60) as client:
            asked = await client.post(f"{server.url}/v1/research", json={"question": "What is the capital of Mali?"})
            assert asked.json()["answer"] == "Bamako"
            ours = f"http://127.0.0.1:{ops_port}"
            assert re.search(
                r'searchr1_runs_total{.*status="completed"} 1.0', (await client.get(f"{ours}/metrics")).text
            )
            assert (await client.get(f"{server.url}/metrics")).status_code == 404
            assert (await client.post(f"{ours}/v1/research", json={"question": "Mali?"})).status_code == 404
            assert f"Operators are served at {ours}" in read(log)
    finally:
        await asyncio.to_thread(command.__exit__, None, None, None)


@pytest.mark.process
async def test_several_workers_share_it(redis: RedisServer, tmp_path: Path) -> None:
    port, ops_port = free_port(), free_port()
    settings = {"MODEL": "m", "TOKENIZER": CHECKPOINT, "RETRIEVER": "http://127.0.0.1:9/r", "WORKERS": 2}
    settings |= {"ENGINE_URL": "http://127.0.0.1:9", "REDIS_URL": redis.url, "OPS_PORT": ops_port}
    environment = {f"SEARCHR1_{name}": str(value) for name, value in settings.items()}
    log = tmp_path / "log"
    command = running(
        searchr1("serve", "--port", str(port)), port, ready="/healthz", log=log, environment=environment, timeout_s=120
    )
    server = await asyncio.to_thread(command.__enter__)
    try:
        await eventually(lambda: "with 2 workers" in read(log))
        limits = httpx.Limits(max_keepalive_connections=0)  # Each request may reach another worker.
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            for _ in range(8):
                metrics = await client.get(f"http://127.0.0.1:{ops_port}/metrics")
                assert "searchr1_runs_running 0.0" in metrics.text
                assert (await client.get(f"{server.url}/metrics")).status_code == 404
    finally:
        await asyncio.to_thread(command.__exit__, None, None, None)


def write(path: Path, text: str) -> None:
    path.write_text(text, "utf-8")


def read(path: Path) -> str:
    return path.read_text("utf-8")
