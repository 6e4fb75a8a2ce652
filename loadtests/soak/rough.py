"""Requests that no client library sends: in bytes, slow, too large, cut off."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from loadtests.soak.stack import KEYS
from tests.engines.vllm.fake_vllm import MODEL

ASKED = {"question": "What is told of Mali?"}
_CHAT = {"model": MODEL, "messages": [{"role": "user", "content": ASKED["question"]}]}
_ANSWER_S = 60.0


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        async with asyncio.timeout(_ANSWER_S):
            yield reader, writer
    finally:
        writer.transport.abort()


def head(path: str, *more: str, key: str = KEYS[0], method: str = "POST") -> bytes:
    """Return the head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Authorization: Bearer {key}", *more, "", ""]).encode()


def whole(path: str, body: object, *more: str, key: str = KEYS[0]) -> bytes:
    """Return a whole request."""
    data = json.dumps(body).encode()
    return head(path, f"Content-Length: {len(data)}", *more, key=key) + data


async def answered(reader: asyncio.StreamReader) -> str:
    """Read one answer, whose connection the server closes, and return its status and its error's code."""
    try:
        data = await reader.read()
    except ConnectionError:
        return "cut"
    if not data:
        return "closed"
    start, _, body = data.partition(b"\r\n\r\n")
    status = start.split(b" ", 2)[1].decode()
    with suppress(ValueError, KeyError, TypeError):
        return f"{status} {json.loads(body)['error']['code']}"
    return status


async def leave_stream(url: str, chance: random.Random) -> str:
    """Ask for a stream, read a part of it, and leave by a FIN or a reset."""
    async with _connected(url) as (reader, writer):
        writer.write(
            whole("/v1/research", {**ASKED, "stream": True, "store": chance.random() < 0.5}, "Connection: close")
        )
        with suppress(asyncio.IncompleteReadError):
            for _ in range(chance.randint(1, 12)):
                await reader.readuntil(b"\n\n")
        if chance.random() < 0.5:
            writer.close()
    return "left"


async def leave_waiting(url: str, chance: random.Random) -> str:
    """Ask for one object and leave before it comes; sometimes with a second request behind the first."""
    path = chance.choice(["/v1/research", "/v1/chat/completions"])
    body = ASKED if path == "/v1/research" else _CHAT
    async with _connected(url) as (_, writer):
        writer.write(whole(path, body))
        if chance.random() < 0.3:
            writer.write(head("/healthz", method="GET"))
        await writer.drain()
        await asyncio.sleep(chance.random() * 0.3)
        if chance.random() < 0.5:
            writer.close()
    return "left"


async def slow_body(url: str, chance: random.Random) -> str:
    """Send a byte every half second, far slower than is borne."""
    async with _connected(url) as (reader, writer):
        writer.write(head("/v1/research", "Content-Length: 400"))
        answer = asyncio.ensure_future(answered(reader))
        try:
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait({answer}, timeout=0.3 + 0.4 * chance.random())
            return answer.result()
        finally:
            answer.cancel()


async def unhurried_body(url: str, chance: random.Random) -> str:
    """Send a body in parts within its time."""
    request = whole("/v1/research", ASKED, "Connection: close")
    async with _connected(url) as (reader, writer):
        for start in range(0, len(request), 40):
            writer.write(request[start : start + 40])
            await asyncio.sleep(0.2 * chance.random())
        return await answered(reader)


async def slow_head(url: str, _: random.Random) -> str:
    """Send half of a head and nothing more."""
    async with _connected(url) as (reader, writer):
        writer.write(head("/v1/research")[:-6])
        return await answered(reader)


async def large_head(url: str, _: random.Random) -> str:
    """Send more headers than are taken."""
    async with _connected(url) as (reader, writer):
        writer.write(head("/v1/models", f"X-Large: {'x' * 40_000}", method="GET"))
        return await answered(reader)


async def large_body(url: str, chance: random.Random) -> str:
    """Send a body over the bound, told by its header or in chunks."""
    part = b" " * 65_536
    async with _connected(url) as (reader, writer):
        answer = asyncio.ensure_future(answered(reader))
        try:
            with suppress(ConnectionError):
                if chance.random() < 0.5:
                    writer.write(head("/v1/research", f"Content-Length: {32 * len(part)}"))
                else:
                    writer.write(head("/v1/research", "Transfer-Encoding: chunked"))
                    part = b"%x\r\n%b\r\n" % (len(part), part)
                for _ in range(18):
                    writer.write(part)
                    await writer.drain()
            return await answer
        finally:
            answer.cancel()


async def idle(url: str, chance: random.Random) -> str:
    """Connect, say nothing, leave."""
    async with _connected(url):
        await asyncio.sleep(chance.random())
    return "left"
