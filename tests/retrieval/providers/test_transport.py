"""The transport below httpx: TLS, packed bodies, what is sent, and how failures are told."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import trustme
from aiohttp import web

from searchr1.retrieval.providers.transport import PooledTransport
from tests.retrieval.providers.conftest import Serve

AUTHORITY = trustme.CA()
Write = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=PooledTransport(max_connections=4, keepalive_s=4), trust_env=False)


@asynccontextmanager
async def raw_server(write: Write, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve bytes, over TLS where a context is given."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await write(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=tls) as server:
        yield f"{'https' if tls else 'http'}://localhost:{server.sockets[0].getsockname()[1]}/"


def saying(answer: bytes) -> Write:
    async def write(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return write


OK = saying(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def tls_server() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("localhost").configure_cert(context)
    return context


async def test_a_server_with_a_certificate_of_nobody_trusted_is_told_nothing() -> None:
    async with raw_server(OK, tls_server()) as url, client() as http:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await http.post(url, json={"secret": 1})


async def test_a_trusted_server_is_answered_by(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting = ssl.create_default_context()
    AUTHORITY.configure_trust(trusting)
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: trusting)
    async with raw_server(OK, tls_server()) as url, client() as http:
        assert (await http.get(url)).text == "ok"


async def test_what_is_sent_is_what_httpx_writes(serve: Serve) -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        told = {"query": dict(request.query), "path": request.raw_path, "body": (await request.read()).decode()}
        packed = gzip.compress(json.dumps({**told, "headers": [*request.headers]}).encode())
        answer = web.Response(body=packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})
        answer.set_cookie("one", "1")
        return answer

    async with serve(echo) as url, client() as http:
        params = {"q": "a+b &c=é / 100%"}
        for _ in range(2):
            response = await http.post(f"{url}/a%2Fb/ü", params=params, json={"x": "é"}, headers={"X-One": "1"})
            told = response.json()
            assert told["query"] == params
            assert told["path"].startswith("/a%2Fb/%C3%BC?")
            assert json.loads(told["body"]) == {"x": "é"}
            sent = [name.lower() for name in told["headers"]]
            assert len(sent) == len(set(sent))
            assert {"host", "x-one", "content-length", "content-type", "user-agent"} <= set(sent)
            assert "transfer-encoding" not in sent


async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (saying(b""), httpx.RemoteProtocolError),
        (saying(b"SSH-2.0-OpenSSH\r\n"), httpx.RemoteProtocolError),
        (saying(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"), httpx.RemoteProtocolError),
        (hang, httpx.ReadTimeout),
    ],
)
async def test_failures_are_httpx_errors(write: Write, kind: type[Exception]) -> None:
    async with raw_server(write) as url, client() as http:
        with pytest.raises(kind):
            await http.get(url, timeout=0.3 if write is hang else 30)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://no-such-host.invalid/", f"http://{'x' * 70}.invalid/"])
async def test_a_server_that_is_not_there_is_a_failed_connection(url: str) -> None:
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(url)


async def test_a_redirect_is_not_followed(serve: Serve) -> None:
    async def elsewhere(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async with serve(elsewhere) as url, client() as http:
        assert (await http.get(url)).status_code == 302
