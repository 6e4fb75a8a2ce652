"""A small app behind the protocol, and a client that writes bytes."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from searchr1.http_server.bounds import HttpBounds
from searchr1.http_server.serving import server_config

HOST = b"Host: localhost\r\n"


@dataclass
class EchoApp:
    """Answers with what was asked. Paths choose how: ``/wait`` until the client leaves, ``/deaf`` without the body."""

    num_left: int = 0
    num_waiting: int = 0
    seen: list[str] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": scope["path"]})
            return
        self.seen.append(scope["path"])
        body = b"" if scope["path"] == "/deaf" else await _body(receive)
        if scope["path"] == "/wait":
            self.num_waiting += 1
            while (await receive())["type"] != "http.disconnect":
                pass
            self.num_left += 1
            return
        names = [name.decode() for name, _ in scope["headers"]]
        told = {"method": scope["method"], "path": scope["path"], "body": body.decode(), "headers": names}
        out = json.dumps(told).encode()
        length = [] if scope["path"] == "/stream" else [(b"content-length", b"%d" % len(out))]
        headers = [(b"connection", b"keep-alive"), *length]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": out[:9], "more_body": True})
        await send({"type": "http.response.body", "body": out[9:]})


async def _body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if not message.get("more_body", False):
            return body


@dataclass
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> list[str]:
        """All values of ``name``."""
        return [value for own, value in self.headers if own == name]

    def json(self) -> Any:
        """The body, whose chunks are put together."""
        return json.loads(self.body)


class Peer:
    """A client that writes and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, *packets: bytes) -> None:
        """Write each packet on its own."""
        for packet in packets:
            self.writer.write(packet)
            await self.writer.drain()
            await asyncio.sleep(0.002)

    async def answer(self, *, of_head: bool = False) -> Answer:
        """Read one answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        lines = [line.partition(": ") for line in head[1:] if line]
        answer = Answer(int(head[0].split()[1]), [(name.lower(), value) for name, _, value in lines], b"")
        if of_head:
            return answer
        if answer.header("content-length"):
            answer.body = await self.reader.readexactly(int(answer.header("content-length")[0]))
        elif answer.header("transfer-encoding"):
            while size := int(await self.reader.readline(), 16):
                answer.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            answer.body = await self.reader.read()
        return answer

    async def rest(self) -> bytes:
        """Read to the end of the connection; a reset is an end too."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""

    def close(self, *, hard: bool = False) -> None:
        """Leave; ``hard`` resets the connection."""
        if hard:
            self.writer.transport.abort()
        self.writer.close()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Peer]:
    """Connect, and leave at the end."""
    peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield peer
    finally:
        peer.close()


@asynccontextmanager
async def running(app: Callable[..., Any], bounds: HttpBounds | None = None, **given: Any) -> AsyncIterator[int]:
    """Serve ``app`` on a port, which is yielded."""
    given = {"port": 0, "log_level": logging.WARNING, "lifespan": "off", "timeout_graceful_shutdown": 1, **given}
    server = uvicorn.Server(server_config(app, bounds or HttpBounds(), **given))
    serving = asyncio.ensure_future(server.serve())
    try:
        while not server.started:  # noqa: ASYNC110 (uvicorn has no event to wait for)
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving
