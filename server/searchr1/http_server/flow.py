"""Flow control of one connection: uvicorn's, whose event would cost each stream most of a kilobyte."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from searchr1.flag import Flag


class Flow(FlowControl):
    """uvicorn's ``FlowControl`` around a ``Flag``."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._writable = Flag()

    async def drain(self) -> None:
        """Return once the connection takes more."""
        if self.write_paused:
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Have the peer wait before it sends more."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the peer send again."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """Note that the peer is slow to read."""
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """Note that the peer has read."""
        self.write_paused = False
        self._writable.set()
