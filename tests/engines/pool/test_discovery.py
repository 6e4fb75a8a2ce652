"""Where a pool's servers are: written down, in DNS, in a Kubernetes cluster's API."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from searchr1.engines.pool.discovery import DnsName, KubernetesService, Static, discovery_of
from searchr1.errors import ConfigurationError, EngineUnavailableError


async def test_addresses_that_are_written_down() -> None:
    found = discovery_of(("http://a:1", "http://b:2/v1"))
    assert isinstance(found, Static)
    assert await found.addresses() == {"http://a:1", "http://b:2/v1"}
    assert not found.changes


async def test_a_name_stands_for_all_that_it_resolves_to() -> None:
    found = discovery_of(("dns+http://user:pw@localhost:8123/v1",))
    assert isinstance(found, DnsName)
    assert found.changes
    assert await found.addresses() == {"http://user:pw@127.0.0.1:8123/v1"}
    assert "pw" not in repr(found)


async def test_a_name_that_is_not_there_is_told() -> None:
    with pytest.raises(EngineUnavailableError, match=r"nobody\.invalid"):
        await discovery_of(("dns+http://nobody.invalid:8000",)).addresses()


@pytest.mark.parametrize(
    ("urls", "message"),
    [
        (("dns+http://a:1", "http://b:1"), "must be the only one"),
        (("k8s://n/s:1", "k8s://n/t:1"), "must be the only one"),
        (("k8s://service:8000",), "k8s://NAMESPACE/SERVICE:PORT"),
        (("k8s://n/s",), "k8s://NAMESPACE/SERVICE:PORT"),
        (("k8s://n/s/../x:1",), "k8s://NAMESPACE/SERVICE:PORT"),
        (("dns+http://",), "names no host"),
        (("http://a", "ftp://b"), "no HTTP address"),
    ],
)
def test_addresses_that_can_not_be_used_are_told(urls: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        discovery_of(urls)


def endpoint(address: str, ready: bool | None) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {} if ready is None else {"ready": ready}}


SLICES = {
    "kind": "EndpointSliceList",
    "items": [
        {
            "endpoints": [endpoint("10.0.0.1", True), endpoint("10.0.0.2", False), endpoint("10.0.0.3", None)],
            "ports": [{"name": "http", "port": 8000}, {"name": "metrics", "port": 9000}],
        },
        {"endpoints": [endpoint("fd00::1", True)], "ports": [{"name": "http", "port": 8000}]},
        {"endpoints": None, "ports": None},
    ],
}


@asynccontextmanager
async def api(answer: Any, status: int = 200) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """The API of a cluster, as far as it is asked."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request)
        return web.Response(text=answer if isinstance(answer, str) else json.dumps(answer), status=status)

    app = web.Application()
    app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("of-the-pod\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("port", ["http", "8000"])
async def test_the_ready_endpoints_of_a_service(account: Path, port: str) -> None:
    async with api(SLICES) as (url, asked):
        found = await KubernetesService("team-a", "vllm", port, account=account, api=url).addresses()
        assert found == {"http://10.0.0.1:8000", "http://10.0.0.3:8000", "http://[fd00::1]:8000"}
        assert asked[0].match_info["namespace"] == "team-a"
        assert asked[0].query["labelSelector"] == "kubernetes.io/service-name=vllm"
        assert asked[0].headers["Authorization"] == "Bearer of-the-pod"
        (account / "token").write_text("renewed", "utf-8")
        await KubernetesService("team-a", "vllm", port, account=account, api=url).addresses()
        assert asked[1].headers["Authorization"] == "Bearer renewed"


@pytest.mark.parametrize(("answer", "status"), [("{}", 403), ("<html>", 200), ('{"items": 3}', 200)])
async def test_an_api_that_does_not_tell_is_told(account: Path, answer: str, status: int) -> None:
    async with api(answer, status) as (url, _):
        with pytest.raises(EngineUnavailableError, match="Kubernetes API"):
            await KubernetesService("n", "vllm", "8000", account=account, api=url).addresses()


async def test_outside_a_cluster_it_is_told(tmp_path: Path, account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(EngineUnavailableError, match="inside a cluster"):
        await KubernetesService("n", "vllm", "8000", account=account).addresses()
    with pytest.raises(EngineUnavailableError, match="Kubernetes API"):
        await KubernetesService("n", "vllm", "8000", account=tmp_path / "none", api="http://127.0.0.1:9").addresses()
