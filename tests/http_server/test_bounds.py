"""What one peer may cost: headers, waits, connections; and a client that leaves is seen, whatever it has sent."""

import asyncio
import logging
import resource
from dataclasses import replace

import pytest

from searchr1.http_server.bounds import HttpBounds, connections_that_fit
from tests.gateway.conftest import eventually

from .conftest import HOST, EchoApp, connected, running

SMALL = HttpBounds(linger_s=0.2, max_header_bytes=4096, max_target_bytes=512)
SHORT = replace(SMALL, header_timeout_s=0.2, keep_alive_s=0.2)
GET = b"GET /a HTTP/1.1\r\n" + HOST
CHUNKED = b"POST /a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"X: " + b"a" * 5000 + b"\r\n\r\n", 431),
        (GET + b"X: " + b"a" * 500_000, 431),
        (GET + b"X" * 500_000, 431),
        (GET + b"X: a\r\n" * 200 + b"\r\n", 431),
        (GET + b"X: a\r\n" * 100_000, 431),
        (b"GET /" + b"a" * 600 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
        (b"GET /?" + b"a" * 100_000, 414),
        (b"GET " + b" " * 100_000, 431),
        (b"\r\n" * 50_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET /a HTTP/9.9\r\n\r\n", 400),
        (b"CONNECT here:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405),
        (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (CHUNKED + b"zz\r\n", 400),
        (GET, 408),
        (GET + b"X: a", 408),
        (b"G", 408),
    ],
)
async def test_a_request_that_is_no_request_is_refused_and_its_connection_ends(
    request_bytes: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    app = EchoApp()
    async with running(app, SHORT if status == 408 else SMALL) as port, connected(port) as peer:
        sending = asyncio.ensure_future(peer.send(request_bytes))
        answer = await peer.answer()
        assert (answer.status, answer.header("connection")) == (status, ["close"])
        assert answer.json()["detail"]
        assert await peer.rest() == b""
        await asyncio.gather(sending, return_exceptions=True)
    assert set(app.seen) <= {"/a"}
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("trailer", [b"X: " + b"a" * 500_000, b"X: a\r\n" * 100_000])
async def test_trailers_are_bounded_like_headers(trailer: bytes) -> None:
    async with running(EchoApp(), SMALL) as port, connected(port) as peer:
        sending = asyncio.ensure_future(peer.send(CHUNKED + b"1\r\na\r\n0\r\n" + trailer))
        assert b"431" in (await peer.rest())[:12]
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("drip", [b"", b"GET / HTTP/1.1\r\nX: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"])
@pytest.mark.parametrize("after", [b"", GET + b"\r\n"])
async def test_a_connection_that_asks_nothing_ends_even_if_it_drips(drip: bytes, after: bytes) -> None:
    async with running(EchoApp(), SHORT) as port, connected(port) as peer:
        if after:
            await peer.send(after)
            assert (await peer.answer()).status == 200
        ending = asyncio.ensure_future(peer.rest())
        for byte in drip:
            if ending.done():
                break
            peer.writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
        await ending
        assert ending.result() == b"" or ending.result().startswith(b"HTTP/1.1 408")


async def test_an_answer_before_the_body_ends_the_connection_however_slow_the_body_comes() -> None:
    async with running(EchoApp(), SMALL) as port, connected(port) as peer:
        await peer.send(b"POST /deaf HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n")
        answer = await peer.answer()
        assert (answer.status, answer.header("connection")) == (200, ["close"])
        ending = asyncio.ensure_future(peer.rest())
        while not ending.done():
            peer.writer.write(b"a")
            await asyncio.sleep(0.02)


async def test_a_large_body_that_is_not_wanted_does_not_take_the_answer_away() -> None:
    async with running(EchoApp()) as port:
        for _ in range(5):
            async with connected(port) as peer:
                body = b"a" * 4_000_000
                sending = asyncio.ensure_future(
                    peer.send(b"POST /deaf HTTP/1.1\r\n" + HOST + b"Content-Length: 4000000\r\n\r\n" + body)
                )
                assert (await peer.answer()).status == 200
                await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize("more", [GET + b"\r\n", GET, b"G", (GET + b"\r\n") * 50, b"garbage\r\n\r\n"])
@pytest.mark.parametrize("hard", [False, True])
async def test_a_client_that_leaves_is_seen_past_a_request_that_it_sent_ahead(
    more: bytes, hard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = EchoApp()
    async with running(app) as port, connected(port) as peer:
        await peer.send(b"POST /wait HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}" + more)
        await eventually(lambda: app.num_waiting == 1)
        peer.close(hard=hard)
        await eventually(lambda: app.num_left == 1)
    assert app.seen == ["/wait"]
    assert [record.message for record in caplog.records] == []


async def test_a_request_sent_ahead_is_dropped_and_the_first_answer_says_so() -> None:
    app = EchoApp()
    async with running(app, SMALL) as port, connected(port) as peer:
        await peer.send(GET + b"\r\n" + b"POST /b HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}")
        answer = await peer.answer()
        assert (answer.status, answer.json()["path"], answer.header("connection")) == (200, "/a", ["close"])
        assert await peer.rest() == b""
    assert app.seen == ["/a"]


@pytest.mark.parametrize("path", [b"/a", b"/stream"])
@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n", b"Connection: close\r\n"])
async def test_http_1_0_gets_no_chunks_and_one_connection_header(path: bytes, connection: bytes) -> None:
    async with running(EchoApp()) as port, connected(port) as peer:
        await peer.send(b"GET " + path + b" HTTP/1.0\r\n" + connection + b"\r\n")
        answer = await peer.answer()
        assert (answer.header("transfer-encoding"), answer.header("connection")) == ([], ["close"])
        assert answer.json()["path"] == path.decode()
        assert await peer.rest() == b""


async def test_a_new_connection_takes_the_place_of_the_one_that_has_waited_longest() -> None:
    async with (
        running(EchoApp(), HttpBounds(max_connections=2)) as port,
        connected(port) as first,
        connected(port) as second,
    ):
        await second.send(GET + b"\r\n")
        assert (await second.answer()).status == 200
        async with connected(port) as third:
            assert await first.rest() == b""
            for peer in (third, second):
                await peer.send(GET + b"\r\n")
                assert (await peer.answer()).status == 200


async def test_where_all_connections_are_busy_probes_are_answered_and_others_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = EchoApp()
    bounds = HttpBounds(max_connections=1, probes=frozenset({"/probe"}))
    async with running(app, bounds) as port, connected(port) as busy:
        await busy.send(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n")
        await eventually(lambda: app.num_waiting == 1)
        for path, status in ((b"/probe", 200), (b"/a", 503), (b"/probe", 200), (b"/a", 503)):
            async with connected(port) as peer:
                await peer.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
                answer = await peer.answer()
                assert (answer.status, answer.header("connection")) == (status, ["close"])
                assert bool(answer.header("retry-after")) == (status == 503)
        assert app.num_left == 0
    assert app.seen == ["/wait", "/probe", "/probe"]
    assert [record.message.count("1 connections are in use") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    ("soft", "hard", "expected", "raised"),
    [
        (200, 200, 100, 200),
        (200, 4096, 1000, 1100),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1000, None),
        (4096, 4096, 1000, None),
        (64, 1060, 960, 1060),
        (10, 10, 5, 10),
    ],
)
def test_connections_fit_into_the_files_that_may_be_open(
    soft: int, hard: int, expected: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    assert connections_that_fit(1000, 100) == expected
    assert limits == ([] if raised is None else [(raised, hard)])
