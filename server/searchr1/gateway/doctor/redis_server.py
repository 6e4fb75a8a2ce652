"""The check of Redis: whether it answers, how it is set up, and whether its clock is ours."""

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from redis.exceptions import RedisClusterException, RedisError

from searchr1.errors import ConfigurationError
from searchr1.gateway.doctor.finding import Finding, ok, warning, wrong
from searchr1.redis_client import open_redis, reason_of
from searchr1.settings import Settings

_LEAST_VERSION: Final = (6, 2)
_MAX_SKEW_S: Final = 1.0
_WITHOUT_USE: Final = ("volatile-ttl", "volatile-random", "allkeys-random")
"""Policies that evict what is in use before what is not."""


async def examine_redis(settings: Settings) -> Sequence[Finding]:
    """Return what is to be said of the Redis that the settings name."""
    if settings.redis_url is None:
        told = "none is named: runs, budgets and cached searches live in this process, and end with it"
        return [ok("redis", told)]
    try:
        client: Any = open_redis(settings.redis_url.get_secret_value())
    except ConfigurationError as error:
        return [wrong("redis", str(error), "correct SEARCHR1_REDIS_URL")]
    async with aclosing(client):
        try:
            await client.eval("return 1", 1, "sr1:doctor")  # It connects with this one.
            started = time.perf_counter()
            await client.ping()
            answer_ms = 1000 * (time.perf_counter() - started)
            skew_s = await _skew_s(client)
            info = _of_one_node(await client.info())
        except (RedisError, RedisClusterException, OSError) as error:
            told = f"it does not do what is asked: {reason_of(error)}"
            fix = "see whether it is up, its address and password are right, and its user may run scripts"
            return [wrong("redis", told, fix)]
    holds_keys = settings.keys_in_redis
    memory = _memory_with_keys(info) if holds_keys else _memory(info)
    return [_version(info, answer_ms), memory, _persistence(info, holds_keys=holds_keys), *_clock(skew_s)]


def _version(info: Mapping[str, Any], answer_ms: float) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = str(info.get("valkey_version", info.get("redis_version", "?")))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    told = f"{name} {version} answers in {answer_ms:.1f} ms"
    if numbers and numbers < _LEAST_VERSION:
        return warning("redis", told, "take 6.2 or later, or any Valkey")
    return ok("redis", told)


def _memory(info: Mapping[str, Any]) -> Finding:
    limit, policy, told = _bound(info)
    if not limit:
        return warning("redis", "its memory has no bound", "set maxmemory, and maxmemory-policy allkeys-lru")
    if policy == "noeviction":
        return warning("redis", f"{told}: once full, it stores no run", "set maxmemory-policy allkeys-lru")
    if policy in _WITHOUT_USE:
        return warning("redis", f"{told}: it may forget runs that go on", "set maxmemory-policy allkeys-lru")
    return ok("redis", told)


def _memory_with_keys(info: Mapping[str, Any]) -> Finding:
    """Judge it as a place of API keys, which never expire."""
    limit, policy, told = _bound(info)
    if not limit:
        return warning("redis", "its memory has no bound", "set maxmemory, and maxmemory-policy volatile-lru")
    if policy != "noeviction" and not policy.startswith("volatile-"):
        fix = "set maxmemory-policy noeviction, or volatile-lru, which spares what never expires"
        return warning("redis", f"{told}: once full, it may evict the API keys", fix)
    return ok("redis", f"{told}, which spares the API keys")


def _bound(info: Mapping[str, Any]) -> tuple[int, str, str]:
    """Return how many bytes it may hold (0: any number), what it does once full, and both in words."""
    limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", ""))
    return limit, policy, f"it holds {limit / 2**20:,.0f} MiB, with {policy}"


def _persistence(info: Mapping[str, Any], *, holds_keys: bool) -> Finding:
    if int(info.get("aof_enabled", 0)):
        return ok("redis", "what it holds outlives its restart (append-only file)")
    told = "what it holds since its last snapshot, if it makes any, ends with its restart"
    if holds_keys:
        fix = "set appendonly yes: new keys would be gone, and revoked ones might open again"
        return warning("redis", f"{told}, API keys too", fix)
    return warning("redis", told, "set appendonly yes, if stored runs and budgets are to stay")


def _clock(skew_s: float) -> list[Finding]:
    if abs(skew_s) <= _MAX_SKEW_S:
        return [ok("clock", f"this machine and Redis differ by {abs(skew_s):.2f} s")]
    told = f"this machine is {abs(skew_s):.1f} s {'behind' if skew_s > 0 else 'ahead of'} Redis"
    return [warning("clock", told, "synchronize the clocks (NTP): deadlines of runs that are taken over go by them")]


async def _skew_s(client: Any) -> float:
    before = time.time()
    seconds, micros = await client.time()
    return float(seconds + micros / 1e6 - (before + time.time()) / 2)


def _of_one_node(info: Any) -> Mapping[str, Any]:
    """Return what one node says; a Cluster's client may give the words of several, by node."""
    nodes = [value for value in info.values() if isinstance(value, dict) and "redis_version" in value]
    return cast(Mapping[str, Any], nodes[0] if nodes else info)
