"""Requests that ask for another protocol are answered as if they did not, however they are put."""

import logging

import pytest
from websockets.asyncio.client import connect

from .conftest import HOST, EchoApp, connected, running

BODIES = {
    "length": (b"Content-Length: 11\r\n", b'{"a": "b"} '),
    "chunks": (b"Transfer-Encoding: chunked\r\n", b'3\r\n{"a\r\n8\r\n": "b"} \r\n0\r\n\r\n'),
    "trailers": (b"Transfer-Encoding: chunked\r\n", b'b\r\n{"a": "b"} \r\n0\r\nX-Sum: 1\r\n\r\n'),
}
UPGRADES = {
    "Java": b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n",
    "curl": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "lower case": b"upgrade: h2c\r\nconnection: upgrade\r\n",
    "upper case": b"UPGRADE: H2C\r\nCONNECTION: UPGRADE\r\n",
    "more tokens": b"Connection: keep-alive, Upgrade\r\nUpgrade: h2c, foo/1\r\n",
    "two lines": b"Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n",
    "no spaces": b"Connection:upgrade,http2-settings\r\nUpgrade:h2c\r\n",
    "TLS": b"Connection: Upgrade\r\nUpgrade: TLS/1.3\r\n",
    "WebSocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "unknown": b"Connection: Upgrade\r\nUpgrade: h3-from-the-future\r\n",
    "empty": b"Connection: Upgrade\r\nUpgrade: \r\n",
    "no upgrade": b"Connection: Upgrade, HTTP2-Settings\r\n",
    "no connection": b"Upgrade: h2c\r\n",
}


@pytest.mark.parametrize("first", ["upgrade", "body"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_is_declined_and_the_request_answered(
    upgrade: str, body: str, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    framing, content = BODIES[body]
    headers = UPGRADES[upgrade] + framing if first == "upgrade" else framing + UPGRADES[upgrade]
    request = b"POST /a?b=c HTTP/1.1\r\n" + HOST + headers + b"X-Own: 1\r\n\r\n" + content
    middle = request.lower().index(b"pgrade") + 2
    async with running(EchoApp()) as port, connected(port) as peer:
        for packets in (
            [request],
            [request[:middle], request[middle:]],
            [request[: -len(content)], content],
            [request[i : i + 1] for i in range(len(request))] if first == "body" else [request],
        ):
            await peer.send(*packets)
            answer = await peer.answer()
            assert answer.status == 200
            told = answer.json()
            assert (told["method"], told["path"], told["body"]) == ("POST", "/a", '{"a": "b"} ')
            assert "x-own" in told["headers"]
            assert answer.header("connection") == []
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_declined_upgrade_may_end_the_connection_and_have_no_body() -> None:
    async with running(EchoApp()) as port, connected(port) as peer:
        await peer.send(b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.header("connection"), await peer.rest()) == (200, ["close"], b"")


async def test_websockets_are_taken_where_they_are_served_and_other_upgrades_are_still_declined() -> None:
    async with running(EchoApp(), ws="websockets-sansio") as port:
        async with connect(f"ws://127.0.0.1:{port}/socket") as socket:
            assert await socket.recv() == "/socket"
        async with connected(port) as peer:
            for upgrade in ("Java", "WebSocket"):
                await peer.send(b"POST /a HTTP/1.1\r\n" + HOST + UPGRADES[upgrade] + b"Content-Length: 2\r\n\r\n{}")
                assert (await peer.answer()).json()["body"] == "{}"
