"""What each key was used for since it was first used: counted in this process's memory, or in Redis for all."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from redis.exceptions import RedisClusterException, RedisError

from searchr1.errors import SearchR1Error
from searchr1.redis_client import RedisClient, answered, reason_of

KEY = "searchr1:usage"
"""A hash of Redis: a number by each key's id and what it counts."""
_LAST_USED = "last_used_at"

_ADD = """
for i = 1, #ARGV, 3 do
  if ARGV[i] == 'add' then
    redis.call('HINCRBY', KEYS[1], ARGV[i + 1], ARGV[i + 2])
  elseif (tonumber(redis.call('HGET', KEYS[1], ARGV[i + 1])) or 0) < tonumber(ARGV[i + 2]) then
    redis.call('HSET', KEYS[1], ARGV[i + 1], ARGV[i + 2])
  end
end
return 0
"""
"""KEYS: the hash. ARGV: 'add' or 'most', a field and a number, again and again."""


class UsageError(SearchR1Error):
    """Counts of usage that can't be reached. The message names no address."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Counts of one key."""

    requests: int = 0
    """Requests that it opened, of every route that asks for a key."""
    runs: int = 0
    """Runs that ended, however they did."""
    tokens_in: int = 0
    """Tokens of prompts and observations, and of the prompts by which questions were rewritten."""
    tokens_out: int = 0
    """Tokens that the model sampled."""
    searches: int = 0
    last_used_at: int = 0
    """Unix time, seconds; 0 for never."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.requests + other.requests,
            self.runs + other.runs,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
            self.searches + other.searches,
            max(self.last_used_at, other.last_used_at),
        )


class UsageStore(Protocol):
    """Counts by the ids of keys. Both methods raise ``UsageError``."""

    async def add(self, usage: Mapping[str, Usage]) -> None:
        """Add to the counts."""
        ...

    async def read(self) -> dict[str, Usage]:
        """Return all counts."""
        ...


class MemoryUsage:
    """A ``UsageStore`` of one process, which ends with it."""

    def __init__(self) -> None:
        self._usage: dict[str, Usage] = {}

    async def add(self, usage: Mapping[str, Usage]) -> None:
        """See ``UsageStore``."""
        for key_id, one in usage.items():
            self._usage[key_id] = self._usage.get(key_id, Usage()) + one

    async def read(self) -> dict[str, Usage]:
        """See ``UsageStore``."""
        return dict(self._usage)


class RedisUsage:
    """A ``UsageStore`` in Redis; ``client`` stays the caller's to close."""

    def __init__(self, client: RedisClient) -> None:
        self._client: Any = client

    async def add(self, usage: Mapping[str, Usage]) -> None:
        """See ``UsageStore``."""
        arguments: list[str | int] = []
        for key_id, one in usage.items():
            for count, number in asdict(one).items():
                if number:
                    arguments += ["most" if count == _LAST_USED else "add", f"{key_id} {count}", number]
        if arguments:
            await self._ask(self._client.eval(_ADD, 1, KEY, *arguments))

    async def read(self) -> dict[str, Usage]:
        """See ``UsageStore``. Fields of other releases are passed over."""
        found: dict[str, Usage] = {}
        for field, value in (await self._ask(self._client.hgetall(KEY))).items():
            key_id, _, count = field.decode("utf-8", "replace").partition(" ")
            if count in Usage.__slots__ and value.isdigit():
                found[key_id] = replace(found.get(key_id, Usage()), **{count: int(value)})
        return found

    async def _ask(self, command: Any) -> Any:
        try:
            return await answered(command)
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            raise UsageError(f"the usage of keys can't be reached in Redis: {reason_of(error)}") from error
