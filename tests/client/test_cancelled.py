"""Async streams whose task is cancelled: the run is cancelled on the server, however impatient the caller is."""

import asyncio
from typing import Any

import anyio
import httpx
import pytest

import searchr1_client as sdk
from tests.client.conftest import EVENTS, RUN, RUN_ID, sse
from tests.support.virtual_time import virtual


class Hanging(httpx.AsyncByteStream):
    """One event, then silence."""

    closed = False

    async def __aiter__(self) -> Any:
        yield sse(EVENTS[0])
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


class Silent:
    """A server whose runs never end; cancels are answered once ``let_go`` is set."""

    def __init__(self) -> None:
        self.body = Hanging()
        self.let_go = asyncio.Event()
        self.num_cancels = 0
        self.first_event = asyncio.Event()

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/cancel"):
            await self.let_go.wait()
            self.num_cancels += 1
            return httpx.Response(200, json=RUN)
        headers = {"content-type": "text/event-stream", "x-run-id": RUN_ID}
        return httpx.Response(200, headers=headers, stream=self.body)

    def client(self) -> sdk.AsyncSearchR1:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return sdk.AsyncSearchR1(base_url="http://h", http_client=http)

    async def follow(self, client: sdk.AsyncSearchR1) -> None:
        async with client.research.stream("Why?") as following:
            async for _ in following:
                self.first_event.set()


async def test_cancelling_the_task_cancels_the_run() -> None:
    server = Silent()
    server.let_go.set()
    task = asyncio.create_task(server.follow(server.client()))
    await server.first_event.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (server.num_cancels, server.body.closed) == (1, True)


@virtual
async def test_cancelling_it_again_leaves_at_once_and_the_run_is_still_cancelled() -> None:
    server = Silent()
    client = server.client()
    task = asyncio.create_task(server.follow(client))
    await server.first_event.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
    assert task.cancelled()
    assert server.num_cancels == 0
    server.let_go.set()
    await client.close()
    assert (server.num_cancels, server.body.closed) == (1, True)


@virtual
async def test_a_timeout_around_the_block_cancels_the_run() -> None:
    server = Silent()
    server.let_go.set()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await server.follow(server.client())
    assert (server.num_cancels, server.body.closed) == (1, True)


@virtual
async def test_a_scope_that_cancels_every_await_cancels_the_run() -> None:
    server = Silent()
    client = server.client()
    with anyio.move_on_after(0.05):
        await server.follow(client)
    server.let_go.set()
    await client.close()
    assert (server.num_cancels, server.body.closed) == (1, True)


@virtual
async def test_a_cancel_that_is_not_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1_client._transport.CANCEL_TIMEOUT_S", 0.01)
    server = Silent()
    async with server.client().research.stream("Why?") as following:
        await anext(following)
    assert (server.num_cancels, server.body.closed) == (0, True)
