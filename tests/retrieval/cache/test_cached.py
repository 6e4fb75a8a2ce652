"""Entries of the cache: their keys and lifetimes, and searches while the store is out."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.cache.cached import CachedRetriever
from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.config import CacheConfig
from tests.retrieval.cache.fakes import UNAVAILABLE, Events, Moody, Provider, Recorded, make
from tests.support.virtual_time import now_s, virtual

EMPTY = Found((), provider="fake")


async def key_of(query: str, *, k: int = 1, scope: str = "", **options: object) -> str:
    store = Recorded()
    cache = make(store, **options)  # type: ignore[arg-type]
    await cache.search(query, k=k, via=cache.retriever.view(scope, only=True))
    return store.keys[0]


@virtual
async def test_a_repeated_search_is_a_hit_with_its_age() -> None:
    cache = make()
    first = await cache.found()
    assert (first.cache, first.age_s, first.provider) == ("miss", None, "fake")
    cache.clock.now_s += 12
    second = await cache.found()
    assert (second.cache, second.age_s, second.provider) == ("hit", 12, "fake")
    assert second.passages == first.passages
    assert cache.provider.calls == 1
    assert cache.events.take() == {"miss": 1, "hit": 1}


class Asked(MemoryStore):
    """A store in memory that notes what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.asked.append("get")
        return await super().get(key)

    async def set(self, key: str, value: bytes, ttl_s: float) -> None:
        self.asked.append("set")
        await super().set(key, value, ttl_s)

    async def claim(self, key: str, token: str, ttl_s: float) -> str:
        self.asked.append("claim")
        return await super().claim(key, token, ttl_s)


@virtual
async def test_a_store_of_this_process_alone_takes_no_lock() -> None:
    store, provider, events = Asked(), Provider(takes_s=1.0), Events()
    cache = CachedRetriever(provider, store, provider="fake", config=CacheConfig(), observer=events)
    outcomes = await asyncio.gather(*(cache.search("q", 1, 10) for _ in range(50)))
    assert all(isinstance(outcome, Found) for outcome in outcomes)
    assert store.asked == ["get"] * 50 + ["set"]
    assert (provider.calls, events.take()) == (1, {"miss": 1, "coalesced": 49})
    provider.outcome = UNAVAILABLE
    assert [await cache.search("r", 1, 10) for _ in range(2)] == [UNAVAILABLE] * 2
    assert store.asked[51:] == ["get"] * 2


@virtual
async def test_searches_that_look_alike_are_one() -> None:
    cache = make()
    for query in ("Capital of Mali", "  capital\u00a0of\n mali ", "ＣＡＰＩＴＡＬ of Mali", "CAPITAL OF MALI"):
        await cache.search(query)
    assert cache.provider.queries == ["Capital of Mali"]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_folding_twice_changes_no_key(query: str) -> None:
    one, other = asyncio.run(key_of(query)), asyncio.run(key_of(f" {query.casefold()}\t"))
    assert one == other


async def test_a_key_hides_its_query_and_stays_in_one_slot() -> None:
    key = await key_of("my secret illness")
    prefix, _, digest = key.rpartition(":")
    assert prefix == "sr1:search:v1"
    assert digest.startswith("{")
    assert digest.endswith("}")
    assert set(digest[1:-1]) <= set("0123456789abcdef")


async def test_everything_that_decides_a_result_is_in_the_key() -> None:
    keys = [
        await key_of("q"),
        await key_of("r"),
        await key_of("q", k=2),
        await key_of("q", scope="acme"),
        await key_of("q", name="other"),
        await key_of("q", filters={"lang": "de"}),
        await key_of("q", filters={"lang": "fr"}),
        await key_of("\ud800"),
    ]
    assert len(set(keys)) == len(keys)
    assert await key_of("q", filters={"a": "1", "b": "2"}) == await key_of("q", filters={"b": "2", "a": "1"})


@virtual
async def test_scopes_see_nothing_of_each_other() -> None:
    cache = make()
    acme, umbrella = cache.retriever.view("acme"), cache.retriever.view("umbrella")
    for view in (acme, umbrella, acme):
        await cache.search(via=view)
    assert cache.provider.calls == 2


@virtual
async def test_an_old_entry_is_stale_and_one_refresh_renews_it() -> None:
    cache = make(provider=Provider(takes_s=1.0))
    await cache.search()
    cache.clock.now_s += 61
    began_s = now_s()
    outcomes = [await cache.found() for _ in range(5)]
    assert now_s() - began_s < 0.1
    assert {(outcome.cache, outcome.age_s, outcome.passages[0].text) for outcome in outcomes} == {
        ("stale", 61, "call 1")
    }
    await asyncio.sleep(1.1)
    assert (await cache.found()).passages[0].text == "call 2"
    assert (await cache.found()).cache == "hit"
    assert cache.provider.calls == 2
    assert cache.events.take() == {"miss": 1, "stale": 5, "refresh": 1, "hit": 2}


@virtual
async def test_only_one_of_the_processes_that_share_a_store_refreshes() -> None:
    store = MemoryStore()
    one, other = make(store, provider=Provider(takes_s=1.0)), make(store, provider=Provider(takes_s=1.0))
    await one.search()
    one.clock.now_s = other.clock.now_s = one.clock.now_s + 61
    await asyncio.gather(one.search(), other.search())
    await asyncio.sleep(1.1)
    assert one.provider.calls + other.provider.calls == 2
    assert ((await one.found()).cache, (await other.found()).cache) == ("hit", "hit")


@virtual
async def test_a_provider_that_fails_leaves_the_stale_entry_and_cools_down() -> None:
    cache = make(refresh_s=5.0)
    await cache.search()
    cache.clock.now_s += 61
    cache.provider.outcome = UNAVAILABLE
    for _ in range(40):
        assert (await cache.found()).cache == "stale"
        await asyncio.sleep(0.01)
    assert cache.provider.calls == 2


@virtual
async def test_an_entry_past_its_hard_ttl_is_gone() -> None:
    cache = make()
    await cache.search()
    cache.clock.now_s += 600
    cache.provider.outcome = UNAVAILABLE
    assert await cache.search() == UNAVAILABLE


@virtual
async def test_providers_have_ttls_of_their_own() -> None:
    cache = make(ttls_s={"fake": (5.0, 10.0)})
    cache.provider.outcome = Found((Passage("", "t", "x"),), provider="fake:advanced")
    await cache.search()
    cache.clock.now_s += 6
    assert (await cache.found()).cache == "stale"


@virtual
async def test_failures_are_not_kept() -> None:
    cache = make(provider=Provider(outcome=UNAVAILABLE))
    assert await cache.search() == UNAVAILABLE
    cache.provider.outcome = None
    assert (await cache.found()).cache == "miss"


@virtual
async def test_empty_results_are_kept_briefly_and_never_stale() -> None:
    cache = make(provider=Provider(outcome=EMPTY))
    await cache.search()
    cache.clock.now_s += 29
    assert (await cache.found()).cache == "hit"
    cache.clock.now_s += 1
    assert (await cache.found()).cache == "miss"


@virtual
async def test_a_result_that_is_too_large_is_returned_and_not_kept() -> None:
    cache = make(max_entry_bytes=500)
    cache.provider.outcome = Found((Passage("", "t", "x" * 1000),), provider="fake")
    assert [(await cache.found()).cache for _ in range(2)] == ["miss", "miss"]
    assert cache.events.take() == {"miss": 2, "too_large": 2}


@virtual
@pytest.mark.parametrize("data", [b"", b"garbage", b"SR1p\x00\x00\x00\x00", b"\x80\x04K\x01."])
async def test_a_damaged_entry_is_a_miss_and_is_replaced(data: bytes) -> None:
    store = Recorded()
    cache = make(store)
    await cache.search()
    await store.set(store.keys[0], data, 60)
    assert [(await cache.found()).cache for _ in range(2)] == ["miss", "hit"]


@virtual
async def test_cache_only_calls_no_provider() -> None:
    cache = make()
    only = cache.retriever.view(only=True)
    outcome = await cache.search(via=only)
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "not_cached"
    await cache.search()
    assert (await cache.found(via=only)).cache == "hit"
    cache.clock.now_s += 61
    assert (await cache.found(via=only)).cache == "stale"
    await asyncio.sleep(1)
    assert cache.provider.calls == 1
    assert cache.events.take() == {"not_cached": 1, "miss": 1, "hit": 1, "stale": 1}


@virtual
@pytest.mark.parametrize("mood", ["hangs", "fails", "refuses"])
async def test_without_its_store_a_search_is_answered_and_barely_later(mood: str) -> None:
    store = Moody()
    setattr(store, mood, True)
    cache = make(store, provider=Provider(takes_s=0.01))
    for number in range(20):
        began_s = now_s()
        assert (await cache.found(f"q {number}")).cache == "miss"
        assert now_s() - began_s <= 0.062
    assert cache.events.counts["bypass"] == 20
    assert cache.provider.calls == 20
    await cache.retriever.aclose()


@virtual
async def test_a_store_that_is_back_is_used_without_a_restart() -> None:
    store = Moody()
    store.hangs = True
    cache = make(store, cooldown_s=1.0)
    await cache.search()
    store.hangs = False
    await asyncio.sleep(1.1)
    assert [(await cache.found()).cache for _ in range(2)] == ["miss", "hit"]
    await cache.retriever.aclose()


@virtual
async def test_a_store_that_is_lost_during_the_call_costs_its_bound_at_most() -> None:
    store = Moody()
    cache = make(store, provider=Provider(takes_s=1.0))
    task = asyncio.create_task(cache.found())
    await asyncio.sleep(0.5)
    store.hangs = True
    began_s = now_s()
    await task
    assert now_s() - began_s <= 0.5 + 0.052
    await cache.retriever.aclose()


@virtual
async def test_an_answer_at_the_last_moment_is_not_lost_to_a_slow_store() -> None:
    store = Moody()
    cache = make(store, provider=Provider(takes_s=0.97))
    store.delay_s = 0.0
    task = asyncio.create_task(cache.search(deadline_s=1.0))
    await asyncio.sleep(0.5)
    store.hangs = True
    assert isinstance(await task, Found)
    await cache.retriever.aclose()


@virtual
async def test_closing_ends_calls_and_refreshes() -> None:
    cache = make(provider=Provider(takes_s=100.0))
    cache.provider.takes_s = 0
    await cache.search("kept")
    cache.provider.takes_s = 100
    cache.clock.now_s += 61
    await cache.search("kept")
    task = asyncio.create_task(cache.search("new", deadline_s=1000))
    await asyncio.sleep(1)
    await cache.retriever.aclose()
    assert isinstance(await task, SearchFailed)
    assert cache.provider.cancelled == 2
    assert asyncio.all_tasks() == {asyncio.current_task()}


@virtual
async def test_a_bug_of_the_provider_is_raised_and_does_not_stay() -> None:
    class Broken(Provider):
        async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
            if not self.queries:
                self.queries.append(query)
                raise LookupError("a bug")
            return await super().search(query, k, deadline_s)

    cache = make(provider=Broken())
    with pytest.raises(LookupError, match="a bug"):
        await cache.search()
    assert (await cache.found()).cache == "miss"


@pytest.mark.parametrize("ttls", [{"soft_ttl_s": 10.0, "hard_ttl_s": 10.0}, {"ttls_s": {"brave": (0.0, 5.0)}}])
def test_a_config_whose_soft_ttl_is_not_below_its_hard_one_is_refused(ttls: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="soft TTL"):
        CacheConfig(**ttls)  # type: ignore[arg-type]
