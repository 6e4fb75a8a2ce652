"""Commands of many runs that go to Redis together: one round trip costs about as much as packing five commands."""

import asyncio
from typing import Any, Final

from redis.exceptions import RedisClusterException, RedisError

from searchr1.redis_client import RedisClient, answered

_LEAST_PAUSE_S: Final = 0.02
"""Between two round trips. A command that comes after a longer silence goes at once."""
_LONGEST_PAUSE_S: Final = 0.25
_PAUSE_PER_COMMAND_S: Final = 0.0005
"""All runs of a process together write at most 2,000 times a second, until ``_LONGEST_PAUSE_S`` stands against it."""
_MAX_GROUP: Final = 500


class GroupedCommands:
    """Sender of commands to Redis, one group at a time. Each one succeeds or fails by itself."""

    def __init__(self, client: RedisClient) -> None:
        self._client: Any = client
        self._waiting: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._sending: asyncio.Task[None] | None = None
        self._due_s = 0.0
        """When the next group may go, by the event loop's clock."""

    async def send(self, *command: Any) -> Any:
        """Return the answer to ``command``. Raises what redis-py raises."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._waiting.append((command, answer))
        if self._sending is None:
            self._sending = loop.create_task(self._send_all())
        return await answer

    async def aclose(self) -> None:
        """Stop sending; what waits is cancelled."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
        for _, answer in self._waiting:
            answer.cancel()

    async def _send_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                if (pause_s := self._due_s - loop.time()) > 0:
                    await asyncio.sleep(pause_s)
                group, self._waiting = self._waiting[:_MAX_GROUP], self._waiting[_MAX_GROUP:]
                await self._send_group(group)
                pause_s = min(max(_LEAST_PAUSE_S, _PAUSE_PER_COMMAND_S * len(group)), _LONGEST_PAUSE_S)
                self._due_s = loop.time() + pause_s
        finally:
            self._sending = None

    async def _send_group(self, group: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for command, _ in group:
            pipeline.execute_command(*command)
        results: list[Any]
        try:
            results = await answered(pipeline.execute(raise_on_error=False))
        except (RedisError, RedisClusterException, OSError) as error:
            results = [error] * len(group)
        except asyncio.CancelledError:
            for _, answer in group:
                answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - the end of the task: whoever waits must hear of it
            results = [error] * len(group)
        for (_, answer), result in zip(group, results, strict=True):
            if answer.done():  # Whoever asked has gone.
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)
