"""A TCP proxy on 127.0.0.1 that notes what clients send; it speaks TLS with them where it has a certificate."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trustme

_ROUNDS_TO_BEGIN = 10
"""Rounds of the event loop in which a connection that a client has just made begins; a server that is closed before
leaves its socket open."""


@dataclass
class Proxy:
    """``seen`` is what all clients sent, decrypted where the proxy speaks TLS. Each connection starts late."""

    upstream: int
    hesitates_s: float = 0.0
    port: int = 0
    seen: bytearray = field(default_factory=bytearray)
    open: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.open[task] = writer
        await asyncio.sleep(self.hesitates_s)
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            answers = asyncio.create_task(self._pump(server_reader, writer, notes=False))
            await self._pump(reader, server_writer, notes=True)
            await answers
        writer.transport.abort()
        del self.open[task]

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, notes: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                if notes:
                    self.seen += data
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def run_proxy(
    upstream: int, *, cert: trustme.LeafCert | None = None, port: int = 0, hesitates_s: float = 0.0
) -> AsyncIterator[Proxy]:
    """Forward to the port ``upstream``, on a free port unless one is given; with ``cert`` clients must speak TLS."""
    proxy = Proxy(upstream, hesitates_s)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if cert else None
    if cert and context:
        cert.configure_cert(context)
    server = await asyncio.start_server(proxy.handle, "127.0.0.1", port, ssl=context)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        for _ in range(_ROUNDS_TO_BEGIN):
            await asyncio.sleep(0)
        server.close()
        while proxy.open:
            for writer in proxy.open.values():
                writer.transport.abort()
            await asyncio.gather(*proxy.open)
