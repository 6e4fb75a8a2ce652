"""The boards on which those who share capacity announce what they want and hold: in Redis, or in this process.

One who announces holds more only where the others together leave it. So all together hold no more than the whole.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from redis.exceptions import RedisClusterException, RedisError

from searchr1.redis_client import RedisClient, answered, reason_of

LEASE_S: Final = 5.0
"""Seconds without an announcement after which a process counts as gone."""
_ANSWER_S: Final = 1.0

_BALANCE = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local meant, used, before = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local free, was_here, answer = tonumber(ARGV[3]), 0, {}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local until_ms, held, demand = string.match(entries[i + 1], '^1 (%d+) (%d+) (%d+)$')
  local is_over = until_ms and tonumber(until_ms) <= now_ms
  if entries[i] == ARGV[1] then
    was_here = until_ms and not is_over and 1 or 0
  elseif is_over then
    redis.call('HDEL', KEYS[1], entries[i])
  elseif until_ms then
    free = free - tonumber(held)
    answer[#answer + 1] = entries[i]
    answer[#answer + 1] = tonumber(demand)
  end
end
if was_here == 0 then meant = math.min(meant, before) end
local held = math.max(0, used, math.min(meant, free))
local until_ms = now_ms + tonumber(ARGV[2])
redis.call('HSET', KEYS[1], ARGV[1], string.format('1 %.0f %.0f %s', until_ms, held, ARGV[7]))
redis.call('PEXPIRE', KEYS[1], 10 * tonumber(ARGV[2]))
table.insert(answer, 1, held)
return answer
"""
"""KEYS: the announcements. ARGV: the process, its lease in ms, the whole, what is meant for it, what its runs need,
what it held before, its demand. Returns what it holds from now on, then names and demands of the others.

An announcement is ``1 END_MS HELD DEMAND``; other versions are passed over. One who was not announced before gets no
more than it held before: a Redis that was emptied must first hear of the others.
"""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What one of several wants and holds of a capacity. All numbers are in its unit: tokens, or runs."""

    key: str
    """The capacity."""
    member: str
    whole: int
    meant: int
    """Its share."""
    used: int
    """What its runs need."""
    before: int
    """What it held before."""
    demand: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a board says to an announcement."""

    held: int
    """What the one who announced holds from now on."""
    others: Mapping[str, int]
    """Demands of the others."""


class BoardError(Exception):
    """Silence of a board. ``str()`` says for the log why; its cause is the error of whatever keeps it."""


class Board(Protocol):
    """Where announcements stand."""

    async def announce(self, announcement: Announcement) -> Standing:
        """Put up ``announcement`` in place of the member's last one. Raises ``BoardError``."""

    async def withdraw(self, member: str, keys: Iterable[str]) -> None:
        """Take a member's announcements down. Raises ``BoardError``."""

    async def aclose(self) -> None:
        """Close what the board is reached by."""


class RedisBoard:
    """A board for processes with one Redis. An announcement that is not repeated is taken down after ``LEASE_S``."""

    def __init__(self, client: RedisClient) -> None:
        """``client`` is closed with this."""
        self._client: Any = client

    async def announce(self, announcement: Announcement) -> Standing:
        """See ``Board``."""
        one = announcement
        arguments = (round(LEASE_S * 1000), one.whole, one.meant, one.used, one.before, one.demand)
        try:
            async with asyncio.timeout(_ANSWER_S):
                held, *others = await answered(self._client.eval(_BALANCE, 1, one.key, one.member, *arguments))
        except (RedisError, RedisClusterException, OSError) as error:  # TimeoutError is an OSError
            raise BoardError(reason_of(error)) from error
        return Standing(held, dict(zip(map(bytes.decode, others[::2]), map(int, others[1::2]), strict=True)))

    async def withdraw(self, member: str, keys: Iterable[str]) -> None:
        """See ``Board``."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                await asyncio.gather(*(self._client.hdel(key, member) for key in keys))
        except (RedisError, RedisClusterException, OSError) as error:
            raise BoardError(reason_of(error)) from error

    async def aclose(self) -> None:
        """See ``Board``."""
        await self._client.aclose()


@dataclass(slots=True)
class LocalBoard:
    """A board for the models of one process, which may be behind the same engine: adapters of one vLLM, say."""

    _notes: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    """By capacity and member: what it holds, and its demand."""

    async def announce(self, announcement: Announcement) -> Standing:
        """See ``Board``."""
        one = announcement
        notes = self._notes.setdefault(one.key, {})
        others = {member: note for member, note in notes.items() if member != one.member}
        free = one.whole - sum(held for held, _ in others.values())
        meant = one.meant if one.member in notes else min(one.meant, one.before)
        held = max(0, one.used, min(meant, free))
        notes[one.member] = held, one.demand
        return Standing(held, {member: demand for member, (_, demand) in others.items()})

    async def withdraw(self, member: str, keys: Iterable[str]) -> None:
        """See ``Board``."""
        for key in keys:
            self._notes.get(key, {}).pop(member, None)

    async def aclose(self) -> None:
        """See ``Board``: nothing is open."""
