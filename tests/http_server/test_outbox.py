"""What a server's tasks write at one moment, and what its connections get of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from searchr1.http_server.outbox import Outbox
from tests.http_server.conftest import Peer, connected


@asynccontextmanager
async def _connection() -> AsyncIterator[tuple[asyncio.Transport, Peer]]:
    """Yield the server's end of a connection and the client's."""
    accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
    server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
    async with server, connected(server.sockets[0].getsockname()[1]) as peer:
        writer = await accepted.get()
        yield cast(asyncio.Transport, writer.transport), peer
        writer.close()


async def test_a_connection_gets_its_pieces_in_order_whatever_becomes_of_others() -> None:
    outbox = Outbox()
    async with _connection() as (one, reader), _connection() as (other, left):
        outbox.put(other, b"lost")
        outbox.put(one, b"first, ")
        outbox.put(other, b"too")
        outbox.put(one, b"second")
        other.abort()
        assert await reader.reader.readexactly(13) == b"first, second"
        assert await left.rest() == b""
        outbox.put(one, b"later")
        assert await reader.reader.readexactly(5) == b"later"


async def test_what_is_flushed_goes_out_before_a_close() -> None:
    outbox = Outbox()
    async with _connection() as (one, reader):
        outbox.put(one, b"the ")
        outbox.put(one, b"end")
        outbox.flush()
        one.close()
        assert await reader.rest() == b"the end"


async def test_a_write_that_fails_keeps_nothing_of_others_back(caplog: pytest.LogCaptureFixture) -> None:
    outbox = Outbox()
    async with _connection() as (one, reader), _connection() as (other, left):
        other.write_eof()
        outbox.put(one, b"whole")
        outbox.put(other, b"too late")  # The last one to be put is the first to be written.
        assert await asyncio.wait_for(reader.reader.readexactly(5), 5) == b"whole"
        assert await left.rest() == b""
        assert other.is_closing()
    assert "writing to a connection met an error" in caplog.text


async def test_who_writes_much_sees_at_once_that_nobody_reads_it() -> None:
    outbox = Outbox()
    async with _connection() as (one, _):
        for _ in range(10_000):
            outbox.put(one, b"x" * 1_000)
        assert one.get_write_buffer_size() > 0
        one.abort()
