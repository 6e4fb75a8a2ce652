"""The flow control of one connection: who waits until when, and what its transport is told."""

import asyncio
from typing import cast

from searchr1.http_server.flow import Flow


class FakeTransport:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")


async def test_a_writer_waits_until_the_peer_has_read() -> None:
    flow = Flow(cast(asyncio.Transport, FakeTransport()))
    await flow.drain()
    for _ in range(2):
        flow.pause_writing()
        waiting = [asyncio.create_task(flow.drain()) for _ in range(2)]
        await asyncio.sleep(0)
        assert flow.write_paused
        assert not any(one.done() for one in waiting)
        flow.resume_writing()
        await asyncio.gather(*waiting)
        await flow.drain()
        assert not flow.write_paused


async def test_the_transport_is_told_once() -> None:
    transport = FakeTransport()
    flow = Flow(cast(asyncio.Transport, transport))
    flow.resume_reading()
    flow.pause_reading()
    flow.pause_reading()
    assert flow.read_paused
    flow.resume_reading()
    flow.resume_reading()
    assert transport.told == ["pause", "resume"]
