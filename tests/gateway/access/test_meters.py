"""Meters of keys: what this process counts itself, and what gateways count together in Redis."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.gateway.access import key_limits
from searchr1.gateway.access.key_limits import KeyLimiter, LimitReachedError
from searchr1.gateway.access.meters import TOKENS_WINDOW_S, MeterError, OwnMeters, Standing, duration, limit_headers
from searchr1.gateway.access.redis_meters import RedisMeters
from searchr1.identity import ANYONE, Caller, KeyLimits
from searchr1.redis_client import RedisClient, open_redis
from tests.gateway.conftest import eventually
from tests.support.redis_server import RedisServer

THREE_A_MINUTE = KeyLimits(requests_per_minute=3)


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.integers(1, 50), st.lists(st.floats(0, 90), max_size=60))
def test_no_stretch_of_time_takes_more_requests_than_it_may(most: int, pauses_s: list[float]) -> None:
    clock, taken_at_s = Clock(), []
    meters = OwnMeters(clock)
    for pause_s in pauses_s:
        clock.now_s += pause_s
        standing = meters.request("k", KeyLimits(requests_per_minute=most))
        if standing.refused is None:
            taken_at_s.append(clock.now_s)
        assert 0 <= standing.requests_left <= most
    for first, begin_s in enumerate(taken_at_s):
        for number, end_s in enumerate(taken_at_s[first:], start=1):
            assert number <= most + (end_s - begin_s) * most / 60 + 1e-6


@given(st.integers(1, 200))
def test_a_rested_key_may_make_all_its_requests_at_once_and_is_told_truly_when_it_may_come_back(most: int) -> None:
    clock = Clock()
    meters, limits = OwnMeters(clock), KeyLimits(requests_per_minute=most)
    assert [meters.request("k", limits).requests_left for _ in range(most)] == list(range(most))[::-1]
    refused = meters.request("k", limits)
    assert refused.refused == "requests_per_minute"
    assert refused.retry_after_s == pytest.approx(60 / most)
    clock.now_s += refused.retry_after_s * 0.99
    assert meters.request("k", limits).refused
    clock.now_s += refused.retry_after_s * 0.02
    assert not meters.request("k", limits).refused
    assert not meters.request("another", limits).refused


def test_tokens_count_in_a_window_that_begins_with_the_first() -> None:
    clock = Clock()
    meters, limits = OwnMeters(clock), KeyLimits(tokens_per_day=100)
    clock.now_s += 50
    meters.spend("k", 60)
    assert meters.request("k", limits) == Standing(tokens_spent=60, tokens_end_in_s=TOKENS_WINDOW_S)
    clock.now_s += 400
    meters.spend("k", 60)
    refused = meters.request("k", limits)
    assert (refused.refused, refused.retry_after_s) == ("tokens_per_day", TOKENS_WINDOW_S - 400)
    clock.now_s += refused.retry_after_s
    assert meters.request("k", limits) == Standing()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.2504, "250ms"), (1, "1s"), (1.5, "1.5s"), (59.99, "59.99s"), (60, "1m0s"), (3600, "1h0m0s")],
)
def test_durations_are_written_as_openais_clients_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_headers_tell_of_limits_that_there_are() -> None:
    standing = Standing(requests_left=2, requests_full_in_s=20, tokens_spent=70, tokens_end_in_s=7322)
    assert limit_headers(KeyLimits(concurrent_runs=1), standing) == {}
    assert limit_headers(KeyLimits(requests_per_minute=3, tokens_per_day=60), standing) == {
        "x-ratelimit-limit-requests": "3",
        "x-ratelimit-remaining-requests": "2",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-limit-tokens": "60",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "2h2m2s",
    }


async def test_runs_at_once_are_bounded_and_come_back() -> None:
    caller = Caller(key_id="k", limits=KeyLimits(concurrent_runs=2))
    async with KeyLimiter() as limiter:
        with await limiter.permit(caller):
            with await limiter.permit(caller), pytest.raises(LimitReachedError, match="2 runs at once"):
                await limiter.permit(caller)
            with await limiter.permit(caller), await limiter.permit(replace(caller, key_id="another")):
                pass
        with limiter.taken_over(caller), limiter.taken_over(caller), pytest.raises(LimitReachedError):
            await limiter.permit(caller)
        with await limiter.permit(caller):
            pass


def test_a_run_that_is_taken_over_brings_its_keys_limits() -> None:
    caller = Caller("acme", "k", limits=KeyLimits(concurrent_runs=1, searches_per_window=0))
    assert msgspec.json.decode(msgspec.json.encode(caller), type=Caller) == caller
    assert msgspec.json.decode(b'{"tenant": "acme", "key_id": "k"}', type=Caller) == Caller("acme", "k")


async def test_who_has_no_limits_is_not_counted() -> None:
    async with KeyLimiter() as limiter:
        for caller in (ANYONE, Caller("acme", "k")):
            assert await limiter.request(caller) is None
            with await limiter.permit(caller):
                pass


@pytest.fixture
async def meters(redis: RedisServer) -> AsyncIterator[tuple[RedisMeters, RedisMeters]]:
    """Those of two gateways, with an empty Redis."""
    clients = [open_redis(redis.url) for _ in range(2)]
    await clients[0].flushall()
    one, other = (RedisMeters(client, timeout_s=5) for client in clients)
    yield one, other
    for client in clients:
        await client.aclose()


async def test_gateways_count_requests_together(meters: tuple[RedisMeters, RedisMeters]) -> None:
    standings = [await one.request("k", THREE_A_MINUTE) for one in meters * 2]
    assert [standing.refused for standing in standings] == [None, None, None, "requests_per_minute"]
    assert [standing.requests_left for standing in standings] == [2, 1, 0, 0]
    assert 0 < standings[-1].retry_after_s <= 20
    assert not (await meters[0].request("another", THREE_A_MINUTE)).refused


async def test_gateways_count_tokens_together(meters: tuple[RedisMeters, RedisMeters]) -> None:
    one, other = meters
    limits = KeyLimits(tokens_per_day=100)
    await one.spend("k", 60)
    told = await other.request("k", limits)
    assert (told.refused, told.tokens_spent) == (None, 60)
    assert TOKENS_WINDOW_S - 60 < told.tokens_end_in_s <= TOKENS_WINDOW_S
    assert (await other.request("k", limits, owed_tokens=40)).refused == "tokens_per_day"
    await other.spend("k", 60)
    refused = await one.request("k", limits)
    assert refused.refused == "tokens_per_day"
    assert TOKENS_WINDOW_S - 60 < refused.retry_after_s <= TOKENS_WINDOW_S


async def test_the_runs_of_a_gateway_that_died_count_no_more(
    meters: tuple[RedisMeters, RedisMeters], redis: RedisServer
) -> None:
    one, other = meters
    assert await one.begin_run("k", "a", 1)
    assert not await other.begin_run("k", "b", 1)
    await one.renew_runs("k", ["a"])
    assert not await other.begin_run("k", "b", 1)
    with redis.client() as client:
        assert client.zadd("searchr1:limit:{k}:runs", {"a": 1}) == 0  # Its lease has ended.
    assert await other.begin_run("k", "b", 1)
    await other.end_runs("k", ["b"])
    assert await one.begin_run("k", "c", 1)
    await other.renew_runs("k", ["d"])
    assert not await one.begin_run("k", "e", 2)


async def test_limiters_share_runs_and_give_them_back(meters: tuple[RedisMeters, RedisMeters]) -> None:
    caller = Caller(key_id="k", limits=KeyLimits(concurrent_runs=1, tokens_per_day=10))
    one, other = (KeyLimiter(shared=each) for each in meters)
    async with one, other:
        with await one.permit(caller), pytest.raises(LimitReachedError):
            await other.permit(caller)
        while True:
            try:
                with await other.permit(caller):
                    break
            except LimitReachedError:
                await asyncio.sleep(0.01)
        one.spend(caller, 10)
        with pytest.raises(LimitReachedError) as caught:
            await one.request(caller)  # At once, whether Redis knows of it yet or not.
        assert caught.value.limit == "tokens_per_day"
    with pytest.raises(LimitReachedError):
        await other.request(caller)


async def test_while_redis_is_away_each_gateway_counts_for_itself() -> None:
    client = open_redis("redis://127.0.0.1:9")
    outages: list[int] = []
    limiter = KeyLimiter(shared=RedisMeters(client), on_outage=lambda: outages.append(1))
    caller = Caller(key_id="k", limits=KeyLimits(requests_per_minute=2, concurrent_runs=1, tokens_per_day=10))
    async with limiter:
        for _ in range(2):
            assert await limiter.request(caller) is not None
        with pytest.raises(LimitReachedError) as caught:
            await limiter.request(caller)
        assert caught.value.limit == "requests_per_minute"
        with await limiter.permit(caller), pytest.raises(LimitReachedError):
            await limiter.permit(caller)
        with await limiter.permit(caller):
            pass
        limiter.spend(caller, 10)
        with pytest.raises(LimitReachedError) as caught:
            await limiter.request(caller)
        assert caught.value.limit == "tokens_per_day"
    assert outages
    await client.aclose()


ONE_AT_ONCE = Caller(key_id="k", limits=KeyLimits(concurrent_runs=1, tokens_per_day=10))


async def test_refused_runs_leave_nothing_to_tell(meters: tuple[RedisMeters, RedisMeters], redis: RedisServer) -> None:
    one, other = (KeyLimiter(shared=each) for each in meters)
    with redis.client() as client:
        async with one, other:
            with await one.permit(ONE_AT_ONCE):
                client.config_resetstat()
                for limiter in (one, other) * 50:  # Refused by its own count, and by Redis.
                    with pytest.raises(LimitReachedError):
                        await limiter.permit(ONE_AT_ONCE)
        calls = client.info("commandstats")["cmdstat_zrem"]["calls"]
        assert calls <= 2  # The one run's end, told again where leaving interrupts that.
        assert client.zcard("searchr1:limit:{k}:runs") == 0


async def test_runs_that_ended_together_are_told_by_one_command(
    meters: tuple[RedisMeters, RedisMeters], redis: RedisServer
) -> None:
    callers = [Caller(key_id=key_id, limits=KeyLimits(concurrent_runs=99)) for key_id in ("k", "l")]
    limiter = KeyLimiter(shared=meters[0])
    for caller in callers * 20:
        with await limiter.permit(caller):
            pass
    with redis.client() as client:
        client.config_resetstat()
        async with limiter:
            pass
        assert client.info("commandstats")["cmdstat_zrem"]["calls"] == 2
        assert not client.keys("searchr1:limit:*:runs")


async def test_runs_that_end_while_redis_is_away_do_not_heap_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_limits, "_MAX_ENDED", 50)
    client = open_redis("redis://127.0.0.1:9")
    async with KeyLimiter(shared=RedisMeters(client)) as limiter:
        for _ in range(200):
            with await limiter.permit(ONE_AT_ONCE):
                pass
        assert len(limiter._ended) == 50
    await client.aclose()


class NotingMeters(RedisMeters):
    """Meters that note what they are told, and break at first in a way that nobody expects."""

    def __init__(self, client: RedisClient, *, is_broken: bool = False) -> None:
        super().__init__(client, timeout_s=5)
        self.told: list[str] = []
        self._is_broken = is_broken
        self.num_outages = 0
        """Ends of leases that are still to fail."""

    async def spend(self, key_id: str, tokens: int) -> None:
        """Note it."""
        if self._is_broken:
            self._is_broken = False
            raise RuntimeError("a bug")
        self.told.append("spend")
        await super().spend(key_id, tokens)

    async def renew_runs(self, key_id: str, leases: Sequence[str]) -> None:
        """Note it."""
        self.told.append("renew")
        await super().renew_runs(key_id, leases)

    async def end_runs(self, key_id: str, leases: Sequence[str]) -> None:
        """Note it."""
        if self.num_outages:
            self.num_outages -= 1
            raise MeterError("Redis does not answer")
        self.told.append("end")
        await super().end_runs(key_id, leases)


async def test_leases_are_renewed_before_all_else(redis: RedisServer) -> None:
    client = open_redis(redis.url)
    await client.flushall()
    noting = NotingMeters(client)
    limiter, caller = KeyLimiter(shared=noting), replace(ONE_AT_ONCE, limits=KeyLimits(2, 2, 10))
    with await limiter.permit(caller):
        with await limiter.permit(caller):
            limiter.spend(caller, 1)
        async with limiter:
            await eventually(lambda: len(noting.told) >= 3)
    assert noting.told == ["renew", "spend", "end"]
    await client.aclose()


async def test_ends_that_could_not_be_told_are_told_later(redis: RedisServer) -> None:
    client = open_redis(redis.url)
    await client.flushall()
    noting = NotingMeters(client)
    noting.num_outages = 1
    async with KeyLimiter(shared=noting) as limiter:
        for caller in (ONE_AT_ONCE, replace(ONE_AT_ONCE, key_id="l")):
            with await limiter.permit(caller):
                pass
        await eventually(lambda: noting.told.count("end") >= 2)
    assert not await client.keys("searchr1:limit:*:runs")
    await client.aclose()


async def test_an_unexpected_error_does_not_end_the_telling(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = open_redis(redis.url)
    await client.flushall()
    noting = NotingMeters(client, is_broken=True)
    async with KeyLimiter(shared=noting) as limiter:
        limiter.spend(ONE_AT_ONCE, 1)
        await eventually(lambda: "spend" in noting.told)
    assert "met an error of the server's own" in caplog.text
    await client.aclose()
