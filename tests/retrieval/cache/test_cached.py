import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import ConfigurationError
from searchr1.loop.types import Passage
from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.cached import CachePolicy
from searchr1.retrieval.memory import MemoryStore
from tests.retrieval.cache.fakes import UNAVAILABLE, Cache, Moody, Provider, make
from tests.retrieval.resilience.fakes import now_s, virtual

EMPTY = Found((), provider="fake")


class Recorded(MemoryStore):
    """Notes the keys that it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def get(self, key: str) -> bytes | None:
        self.keys.append(key)
        return await super().get(key)


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
async def test_a_provider_that_fails_leaves_the_stale_entry_and_rests() -> None:
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
async def test_identical_searches_at_the_same_time_are_one_call() -> None:
    cache = make(provider=Provider(takes_s=1.0))
    outcomes = await asyncio.gather(*(cache.found() for _ in range(200)))
    assert cache.provider.calls == 1
    assert sorted(outcome.cache for outcome in outcomes) == ["hit"] * 199 + ["miss"]
    assert len({outcome.passages for outcome in outcomes}) == 1
    assert cache.events.take() == {"miss": 1, "coalesced": 199}


async def cancelled(tasks: Sequence[asyncio.Task[SearchOutcome]]) -> None:
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))


@virtual
async def test_waiters_survive_the_leader() -> None:
    cache = make(provider=Provider(takes_s=1.0))
    leader = asyncio.create_task(cache.search())
    await asyncio.sleep(0.1)
    waiters = [asyncio.create_task(cache.search()) for _ in range(5)]
    await asyncio.sleep(0.1)
    await cancelled([leader, waiters[0]])
    assert all(isinstance(outcome, Found) for outcome in await asyncio.gather(*waiters[1:]))
    assert (cache.provider.calls, cache.provider.cancelled) == (1, 0)


@virtual
async def test_a_call_that_nobody_waits_for_is_cancelled_and_blocks_nobody() -> None:
    cache = make(provider=Provider(takes_s=1.0))
    tasks = [asyncio.create_task(cache.search()) for _ in range(3)]
    await asyncio.sleep(0.1)
    await cancelled(tasks)
    began_s = now_s()
    assert (await cache.found()).cache == "miss"
    assert now_s() - began_s < 1.2
    assert (cache.provider.calls, cache.provider.cancelled) == (2, 1)


@virtual
async def test_a_failure_reaches_all_who_wait_by_one_call() -> None:
    cache = make(provider=Provider(takes_s=1.0, outcome=UNAVAILABLE))
    assert set(await asyncio.gather(*(cache.search() for _ in range(50)))) == {UNAVAILABLE}
    assert cache.provider.calls == 1


@virtual
async def test_who_has_more_time_than_the_leader_gets_an_answer() -> None:
    cache = make(provider=Provider(takes_s=1.0))
    hasty = asyncio.create_task(cache.search(deadline_s=0.5))
    await asyncio.sleep(0.01)
    patient = await asyncio.gather(*(cache.search(deadline_s=10) for _ in range(20)))
    outcome = await hasty
    assert isinstance(outcome, SearchFailed)
    assert (outcome.kind, outcome.message) == ("timeout", "fake did not answer in time")
    assert all(isinstance(outcome, Found) for outcome in patient)
    assert cache.provider.calls == 2


@virtual
async def test_a_timeout_of_the_provider_itself_is_shared_like_any_failure() -> None:
    cache = make(provider=Provider(takes_s=1.0, outcome=SearchFailed("timeout", "gave up")))

    async def later() -> SearchOutcome:
        await asyncio.sleep(0.1)
        return await cache.search()

    await asyncio.gather(cache.search(), *(later() for _ in range(10)))
    assert cache.provider.calls == 1


@virtual
async def test_a_provider_that_is_a_little_late_is_heard() -> None:
    class Late(Provider):
        async def search(self, query: str, k: int, deadline_s: float) -> SearchOutcome:
            await asyncio.sleep(deadline_s + 0.01)
            return SearchFailed("timeout", "its own words")

    assert await make(provider=Late()).search(deadline_s=1.0) == SearchFailed("timeout", "its own words")


@virtual
async def test_nobody_waits_beyond_the_own_deadline() -> None:
    cache = make(provider=Provider(takes_s=5.0))
    patient = asyncio.create_task(cache.search(deadline_s=10))
    await asyncio.sleep(0.01)
    began_s = now_s()
    outcome = await cache.search(deadline_s=0.5)
    assert now_s() - began_s <= 0.501
    assert isinstance(outcome, SearchFailed)
    assert outcome.kind == "timeout"
    assert isinstance(await patient, Found)


def replicas(store: MemoryStore | Moody, count: int) -> list[Cache]:
    return [make(store, provider=Provider(takes_s=1.0)) for _ in range(count)]


def calls(caches: Sequence[Cache]) -> int:
    return sum(cache.provider.calls for cache in caches)


@virtual
async def test_identical_searches_of_several_processes_are_one_call() -> None:
    caches = replicas(MemoryStore(), 4)
    outcomes = await asyncio.gather(*(cache.found() for cache in caches for _ in range(50)))
    assert calls(caches) == 1
    assert sorted(outcome.cache for outcome in outcomes) == ["hit"] * 199 + ["miss"]
    assert sum(cache.events.counts["coalesced"] for cache in caches) == 199


@virtual
async def test_what_another_process_kept_before_the_claim_is_seen() -> None:
    class Slow(Recorded):
        async def get(self, key: str) -> bytes | None:
            value = await super().get(key)
            await asyncio.sleep(0.03)
            return value

        async def claim(self, key: str, token: str, ttl_s: float) -> str:
            await asyncio.sleep(0.01)
            return await super().claim(key, token, ttl_s)

    store, elsewhere = Slow(), Recorded()
    await make(elsewhere).search()
    [key] = set(elsewhere.keys)
    data = await elsewhere.get(key)
    assert data is not None
    cache = make(store)
    one = asyncio.create_task(cache.found())
    await asyncio.sleep(0.031)
    other = asyncio.create_task(cache.found())
    await asyncio.sleep(0.001)
    await store.set(key, data, 60)
    assert {outcome.cache for outcome in await asyncio.gather(one, other)} == {"hit"}
    assert cache.provider.calls == 0


@virtual
async def test_a_failure_reaches_those_who_wait_in_other_processes() -> None:
    caches = replicas(MemoryStore(), 4)
    for cache in caches:
        cache.provider.outcome = UNAVAILABLE
    began_s = now_s()
    assert set(await asyncio.gather(*(cache.search() for cache in caches))) == {UNAVAILABLE}
    assert calls(caches) == 1
    assert now_s() - began_s < 1.5
    assert await caches[0].search() == UNAVAILABLE
    assert calls(caches) == 2


@virtual
async def test_the_next_process_goes_when_the_lock_of_a_dead_one_has_expired() -> None:
    store = Recorded()
    [cache] = replicas(store, 1)
    await cache.search(via=cache.retriever.view(only=True))
    clock = asyncio.get_running_loop().time
    store._clock = clock
    await store.claim(f"{store.keys[0]}:lock", "of the dead", 2.0)
    began_s = now_s()
    assert (await cache.found()).cache == "miss"
    assert 3.0 <= now_s() - began_s < 3.3


@virtual
async def test_who_waited_half_of_its_time_for_another_process_calls_itself() -> None:
    store = Recorded()
    [cache] = replicas(store, 1)
    await cache.search(via=cache.retriever.view(only=True))
    await store.claim(f"{store.keys[0]}:lock", "of the slow", 1000)
    began_s = now_s()
    assert (await cache.found(deadline_s=4.0)).cache == "miss"
    assert 3.0 <= now_s() - began_s < 3.1


@virtual
async def test_a_cancelled_search_leaves_no_lock() -> None:
    one, other = replicas(MemoryStore(), 2)
    task = asyncio.create_task(one.search())
    await asyncio.sleep(0.5)
    await cancelled([task])
    began_s = now_s()
    await other.found()
    assert now_s() - began_s < 1.1


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
async def test_without_its_store_identical_searches_are_still_one_call() -> None:
    store = Moody()
    store.hangs = True
    cache = make(store, provider=Provider(takes_s=1.0))
    await asyncio.gather(*(cache.found() for _ in range(100)))
    assert cache.provider.calls == 1
    await cache.retriever.aclose()


@virtual
async def test_a_store_that_is_back_is_used_without_a_restart() -> None:
    store = Moody()
    store.hangs = True
    cache = make(store, rest_s=1.0)
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
def test_a_policy_whose_soft_ttl_is_not_below_its_hard_one_is_refused(ttls: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="soft TTL"):
        CachePolicy(**ttls)  # type: ignore[arg-type]
