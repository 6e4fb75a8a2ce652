"""The recipes for proxies, run by the proxies, in front of a server whose second event waits for the first."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from loadtests.processes import program_path
from loadtests.proxies import NAME, PROGRAMS, RECIPES, Front, front
from searchr1.settings import Settings
from tests.deploy.manifests import Object

WAIT_S = 20.0


@dataclass
class Upstream:
    """A server of one stream: its second event is sent once ``is_read`` says that the first has been read."""

    port: int
    is_read: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("GET /readyz"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n")
            await writer.drain()
            await started.is_read.wait()
            writer.write(b"data: 2\n\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    started = Upstream(server.sockets[0].getsockname()[1])
    async with server:
        yield started
        started.is_read.set()


@asynccontextmanager
async def running(program: str, folder: Path, to_port: int) -> AsyncIterator[Front]:
    """Run a proxy by its recipe; it asks the upstream, which runs here, while it starts."""
    with ExitStack() as stack:
        yield await asyncio.to_thread(stack.enter_context, front(program, folder, [to_port]))


def client(front: Front) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(verify=front.tls)
    return httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{front.port}", transport=transport, headers={"Host": NAME}, timeout=WAIT_S
    )


SNI = {"sni_hostname": NAME}
needs = [
    pytest.param(name, marks=pytest.mark.skipif(program_path(name) is None, reason=f"needs {name}"))
    for name in PROGRAMS
]


@pytest.mark.parametrize("program", needs)
async def test_a_stream_comes_through_event_by_event(program: str, tmp_path: Path) -> None:
    async with (
        upstream() as server,
        running(program, tmp_path, server.port) as proxy,
        client(proxy) as http,
        http.stream("POST", "/v1/research", json={}, extensions=SNI) as answer,
    ):
        assert answer.status_code == 200, (tmp_path / "proxy.log").read_text("utf-8")
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"data: 1\n\n"
        server.is_read.set()
        assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"


@pytest.mark.parametrize("program", needs)
async def test_what_is_not_public_is_kept_in(program: str, tmp_path: Path) -> None:
    async with upstream() as server, running(program, tmp_path, server.port) as proxy, client(proxy) as http:
        statuses = [
            (await http.request(method, path, content=body, extensions=SNI)).status_code
            for method, path, body in (
                ("GET", "/metrics", b""),
                ("POST", "/admin/reload", b""),
                ("GET", "/readyz", b""),
            )
        ]
    assert statuses == [403, 403, 200]


@pytest.mark.parametrize("program", needs)
async def test_a_name_is_served_with_its_port_too(program: str, tmp_path: Path) -> None:
    async with upstream() as server, running(program, tmp_path, server.port) as proxy, client(proxy) as http:
        hosts = (NAME, f"{NAME}:{proxy.port}")
        asked = [await http.get("/readyz", headers={"Host": host}, extensions=SNI) for host in hosts]
    assert [answer.status_code for answer in asked] == [200, 200]


@pytest.mark.parametrize("program", needs)
async def test_http_2_is_spoken(program: str, tmp_path: Path) -> None:
    async with upstream() as server, running(program, tmp_path, server.port) as proxy:
        proxy.tls.set_alpn_protocols(["h2", "http/1.1"])
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=proxy.tls, server_hostname=NAME)
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        writer.close()


def envoy() -> Object:
    found: Object = yaml.safe_load((RECIPES / "envoy.yaml").read_text("utf-8"))["static_resources"]
    return found


def test_envoy_cuts_no_stream_and_keeps_what_is_not_public() -> None:
    [manager] = envoy()["listeners"][0]["filter_chains"][0]["filters"]
    config = manager["typed_config"]
    [host] = config["route_config"]["virtual_hosts"]
    *kept, everything = host["routes"]
    assert [(one["match"]["prefix"], one["direct_response"]["status"]) for one in kept] == [
        ("/metrics", 403),
        ("/admin", 403),
    ]
    assert everything["route"]["timeout"] == "0s"
    longest_s = Settings.model_fields["max_deadline_s"].default
    for idle in (config["stream_idle_timeout"], everything["route"]["idle_timeout"]):
        assert float(idle.removesuffix("s")) > longest_s
