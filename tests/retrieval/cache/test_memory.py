import pytest

from searchr1.retrieval.cache.memory import MemoryStore
from searchr1.retrieval.cache.store import StoreRefusedError
from tests.retrieval.cache.fakes import Clock


async def test_the_least_recently_used_value_goes_first() -> None:
    store = MemoryStore(4000)
    for key in "abc":
        await store.set(key, b"x" * 1000, 60)
    assert await store.get("a") is not None
    await store.set("d", b"x" * 1000, 60)
    assert [await store.get(key) is not None for key in "abcd"] == [True, False, True, True]


async def test_it_stays_within_its_bytes_whatever_is_set() -> None:
    store = MemoryStore(10_000)
    for number in range(500):
        await store.set(f"key {number % 40}", b"x" * (number * 37 % 3000), 60)
        await store.claim(f"lock {number}", "token", 60)
        assert store.size_bytes <= 10_000
    assert store.size_bytes > 5000


async def test_a_value_that_never_fits_is_refused_and_replaces_nothing() -> None:
    store = MemoryStore(2000)
    await store.set("a", b"small", 60)
    with pytest.raises(StoreRefusedError):
        await store.set("a", b"x" * 3000, 60)
    assert await store.get("a") == b"small"


async def test_values_end_with_their_ttl_and_free_their_bytes() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    await store.set("a", b"value", 10)
    clock.now_s += 9.9
    assert await store.get("a") == b"value"
    clock.now_s += 0.1
    assert await store.get("a") is None
    assert store.size_bytes == 0
