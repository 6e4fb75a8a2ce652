"""One call for all who search for the same at the same time, in one process or in several."""

import asyncio
from collections.abc import Sequence

from searchr1.retrieval.base import Found, SearchFailed, SearchOutcome
from searchr1.retrieval.cache.memory import MemoryStore
from tests.retrieval.cache.fakes import UNAVAILABLE, Cache, Moody, Provider, Recorded, make
from tests.support.virtual_time import now_s, virtual


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
async def test_without_its_store_identical_searches_are_still_one_call() -> None:
    store = Moody()
    store.hangs = True
    cache = make(store, provider=Provider(takes_s=1.0))
    await asyncio.gather(*(cache.found() for _ in range(100)))
    assert cache.provider.calls == 1
    await cache.retriever.aclose()
