"""The way past middleware: which messages of a streamed answer take it, and that the answer is the same."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from searchr1.http_server import pieces
from searchr1.http_server.paths import HeadAsGet
from tests.http_server.conftest import HOST, connected, running

PIECES = (b"one", b"two", b"three")


class Streaming:
    """Streams ``PIECES``; ``scopes`` are those of its requests."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        send_piece = pieces.way_of(scope, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in PIECES:
            await send_piece(piece)
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Watched:
    """Middleware that notes the messages which it sees; with ``hidden``, the server's way is not there."""

    def __init__(self, app: Any, *, hidden: bool) -> None:
        self.seen: list[tuple[str, bytes]] = []
        self._app, self._hidden = app, hidden

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def noted(message: Any) -> None:
            self.seen.append((message["type"].rpartition(".")[2], message.get("body", b"")))
            await send(message)

        if self._hidden:
            pieces.withdraw(scope)
        await self._app(scope, receive, noted)


@pytest.mark.parametrize(
    ("hidden", "seen"), [(False, [b"", b""]), (True, [b"", *PIECES, b""])], ids=["past", "through"]
)
async def test_pieces_go_past_middleware_and_head_and_end_through_it(hidden: bool, seen: list[bytes]) -> None:
    app = Watched(Streaming(), hidden=hidden)
    async with running(app) as port, connected(port) as peer:
        for number in (1, 2):
            await peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            assert (await peer.answer()).body == b"".join(PIECES)
            assert [body for _, body in app.seen] == seen * number
    assert [kind for kind, _ in app.seen][: len(seen)] == ["start", *["body"] * (len(seen) - 1)]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
async def test_the_way_ends_with_the_answer_and_head_has_none(method: bytes) -> None:
    streaming = Streaming()
    async with running(Watched(HeadAsGet(streaming), hidden=False)) as port, connected(port) as peer:
        await peer.send(method + b" / HTTP/1.1\r\n" + HOST + b"\r\n")
        answer = await peer.answer(of_head=method == b"HEAD")
        assert answer.body == (b"" if method == b"HEAD" else b"".join(PIECES))
        await peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        assert (await peer.answer()).body == b"".join(PIECES)
    for scope in streaming.scopes:
        assert pieces.way_of(scope, _refuse).__name__ == "through"


async def _refuse(message: Any) -> None:
    raise AssertionError(f"{message} was sent")


async def test_pieces_for_a_client_that_has_left_are_dropped() -> None:
    left, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        send_piece = pieces.way_of(scope, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        for piece in PIECES:
            await send_piece(piece)
        ended.set()

    async with running(app) as port, connected(port) as peer:
        await peer.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        peer.close()
        await asyncio.wait_for(ended.wait(), 10)
    assert left.is_set()
