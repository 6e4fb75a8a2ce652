"""The recipes for proxies, run by the proxies, in front of a server whose second event waits for the first."""

import asyncio
import os
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import trustme
import yaml

from searchr1.settings import Settings
from searchr1.sockets import bind
from tests.deploy.manifests import ROOT, Object

PROXIES = ROOT / "deploy" / "proxies"
NAME = "answers.example"
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


@dataclass(frozen=True)
class Front:
    """A proxy that runs: where it listens, and what its certificate is checked by."""

    port: int
    tls: ssl.SSLContext


@contextmanager
def front(program: str, folder: Path, to_port: int) -> Iterator[Front]:
    """Run a proxy by its recipe, with other addresses and a certificate of the tests."""
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME, "localhost")
    certificate.private_key_pem.write_to_path(folder / "answers.key")
    for pem in certificate.cert_chain_pems:
        pem.write_to_path(folder / "answers.pem", append=True)
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = {"nginx": nginx, "caddy": caddy}[program](folder, port, to_port)
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    environment = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    log = (folder / "log").open("wb")
    with log, subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log) as process:
        try:
            yield Front(port, tls)
        finally:
            process.terminate()
            process.wait(timeout=WAIT_S)


def nginx(folder: Path, port: int, to_port: int) -> list[str]:
    recipe = (PROXIES / "nginx.conf").read_text("utf-8")
    for old, new in {
        "127.0.0.1:8000": f"127.0.0.1:{to_port}",
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/": f"{folder}/",
    }.items():
        assert old in recipe
        recipe = recipe.replace(old, new)
    (folder / "recipe.conf").write_text(recipe, "utf-8")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    http = f"http {{ access_log off; {paths} include {folder}/recipe.conf; }}"
    main = f"daemon off; pid {folder}/pid; error_log stderr; events {{}} {http}"
    (folder / "main.conf").write_text(main, "utf-8")
    return ["nginx", "-p", str(folder), "-c", str(folder / "main.conf")]


def caddy(folder: Path, port: int, to_port: int) -> list[str]:
    recipe = (PROXIES / "Caddyfile").read_text("utf-8")
    site = f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/answers.pem {folder}/answers.key"
    for old, new in {"127.0.0.1:8000": f"127.0.0.1:{to_port}", f"{NAME} {{": site}.items():
        assert old in recipe
        recipe = recipe.replace(old, new)
    options = "{\n\tadmin off\n\tauto_https off\n}\n"
    (folder / "Caddyfile").write_text(options + recipe, "utf-8")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


async def until_open(front: Front) -> None:
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", front.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def client(front: Front) -> httpx.AsyncClient:
    transport = httpx.AsyncHTTPTransport(verify=front.tls)
    return httpx.AsyncClient(
        base_url=f"https://127.0.0.1:{front.port}", transport=transport, headers={"Host": NAME}, timeout=WAIT_S
    )


SNI = {"sni_hostname": NAME}
needs = {
    name: pytest.param(name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"needs {name}"))
    for name in ("nginx", "caddy")
}


@pytest.mark.parametrize("program", needs.values())
async def test_a_stream_comes_through_event_by_event(program: str, tmp_path: Path) -> None:
    async with upstream() as server:
        with front(program, tmp_path, server.port) as proxy:
            await until_open(proxy)
            async with client(proxy) as http, http.stream("POST", "/v1/research", json={}, extensions=SNI) as answer:
                assert answer.status_code == 200, (tmp_path / "log").read_text("utf-8")
                pieces = answer.aiter_raw()
                assert await anext(pieces) == b"data: 1\n\n"
                server.is_read.set()
                assert b"".join([piece async for piece in pieces]) == b"data: 2\n\n"


@pytest.mark.parametrize("program", needs.values())
async def test_what_is_not_public_is_kept_in(program: str, tmp_path: Path) -> None:
    async with upstream() as server:
        with front(program, tmp_path, server.port) as proxy:
            await until_open(proxy)
            async with client(proxy) as http:
                statuses = [
                    (await http.request(method, path, content=body, extensions=SNI)).status_code
                    for method, path, body in (
                        ("GET", "/metrics", b""),
                        ("POST", "/admin/reload", b""),
                        ("GET", "/readyz", b""),
                    )
                ]
    assert statuses == [403, 403, 200]


@pytest.mark.parametrize("program", needs.values())
async def test_http_2_is_spoken(program: str, tmp_path: Path) -> None:
    async with upstream() as server:
        with front(program, tmp_path, server.port) as proxy:
            await until_open(proxy)
            proxy.tls.set_alpn_protocols(["h2", "http/1.1"])
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port, ssl=proxy.tls, server_hostname=NAME)
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
            writer.close()


def envoy() -> Object:
    found: Object = yaml.safe_load((PROXIES / "envoy.yaml").read_text("utf-8"))["static_resources"]
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


@pytest.mark.skipif(shutil.which("envoy") is None, reason="needs envoy")
def test_envoy_takes_its_recipe(tmp_path: Path) -> None:
    certificate = trustme.CA().issue_cert(NAME)
    certificate.private_key_pem.write_to_path(tmp_path / "answers.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "answers.pem")
    recipe = (PROXIES / "envoy.yaml").read_text("utf-8").replace("/etc/ssl/", f"{tmp_path}/")
    (tmp_path / "envoy.yaml").write_text(recipe, "utf-8")
    command = ["envoy", "--mode", "validate", "-c", str(tmp_path / "envoy.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
