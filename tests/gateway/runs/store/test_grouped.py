"""Commands that go to Redis together: each has its own answer, and none waits for ever."""

import asyncio

import pytest

from searchr1.gateway.runs.store.grouped import GroupedCommands
from searchr1.redis_client import open_redis
from tests.support.redis_server import run_redis

pytestmark = pytest.mark.redis


async def test_whoever_sends_beside_what_cannot_be_packed_is_told_and_can_send_again() -> None:
    with run_redis() as server:
        client = open_redis(server.url)
        commands = GroupedCommands(client)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(
                commands.send("SET", "a", "1"),
                commands.send("SET", "b", "\ud800"),  # No bytes are that text.
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [UnicodeEncodeError, UnicodeEncodeError]
            assert await commands.send("GET", "a") is None
            assert await commands.send("SET", "a", "2") in (b"OK", True)
            assert await commands.send("GET", "a") == b"2"
        await commands.aclose()
        await client.aclose()
