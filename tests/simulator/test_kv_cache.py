"""The simulated KV cache: what is found, what is reused first, and that no block is lost."""

import pytest

from loadtests.simulator.kv_cache import Hit, KVCache

SHARED, NO_PREFIX = "shared", ("none", 0)


def used(cache: KVCache, own: str, num_hashed: int, num_unhashed: int = 0) -> None:
    """Let a run hold blocks and free them."""
    cache.hold(*NO_PREFIX, own, cache.find(*NO_PREFIX, own, 1))
    cache.allocate(num_hashed + num_unhashed)
    cache.free(NO_PREFIX[0], own, num_hashed, num_unhashed)


def found(cache: KVCache, own: str, *, prefix_blocks: int = 0) -> int:
    prefix = SHARED if prefix_blocks else NO_PREFIX[0]
    return cache.find(prefix, prefix_blocks, own, 1000).num_blocks


@pytest.mark.parametrize(("num_tokens", "hit"), [(1, 0), (4, 0), (5, 1), (12, 2), (13, 3), (100, 3)])
def test_all_but_the_last_token_is_found_in_whole_blocks(num_tokens: int, hit: int) -> None:
    cache = KVCache(10, block_size=4)
    used(cache, "a", 3)
    assert cache.find(*NO_PREFIX, "a", num_tokens) == Hit(0, hit)
    assert cache.find(*NO_PREFIX, "b", num_tokens) == Hit(0, 0)


def test_blocks_are_reused_longest_unused_first_from_the_end_of_a_run() -> None:
    cache = KVCache(8, block_size=4)
    used(cache, "a", 3)
    used(cache, "b", 3)
    cache.allocate(3)
    assert (found(cache, "a"), found(cache, "b")) == (2, 3)
    cache.allocate(1)
    assert (found(cache, "a"), found(cache, "b")) == (1, 3)
    cache.allocate(2)
    assert (found(cache, "a"), found(cache, "b")) == (0, 2)


def test_to_be_found_again_makes_a_run_the_last_to_go() -> None:
    cache = KVCache(6, block_size=4)
    used(cache, "a", 3)
    used(cache, "b", 3)
    cache.hold(*NO_PREFIX, "a", cache.find(*NO_PREFIX, "a", 1000))
    cache.free(NO_PREFIX[0], "a", 3, 0)
    cache.allocate(3)
    assert (found(cache, "a"), found(cache, "b")) == (3, 0)


def test_blocks_without_a_hash_are_reused_before_any_content() -> None:
    cache = KVCache(4, block_size=4)
    used(cache, "a", 2, 2)
    cache.allocate(2)
    assert found(cache, "a") == 2


def test_a_prefix_is_held_by_all_and_goes_last_of_a_run() -> None:
    cache = KVCache(10, block_size=4)
    for own in ("a", "b"):
        cache.hold(SHARED, 2, own, cache.find(SHARED, 2, own, 100))
        cache.allocate(2)
    assert cache.num_free == 4
    cache.free(SHARED, "a", 2, 0)
    cache.allocate(6)
    assert (found(cache, "a", prefix_blocks=2), found(cache, "b", prefix_blocks=2)) == (2, 2)
    cache.free(SHARED, "b", 2, 0)
    cache.allocate(3)
    assert found(cache, "b", prefix_blocks=2) == 1


def test_what_stands_behind_a_lost_prefix_is_not_found() -> None:
    cache = KVCache(6, block_size=4)
    cache.hold(SHARED, 2, "a", Hit(0, 0))
    cache.allocate(2)
    cache.free(SHARED, "a", 2, 0)
    used(cache, "other", 2)
    assert cache.find(SHARED, 2, "a", 100) == Hit(2, 2)
    cache.hold(SHARED, 2, "b", Hit(2, 0))
    cache.free(SHARED, "b", 0, 0)
    cache.allocate(5)
    assert cache.find(SHARED, 2, "a", 100) == Hit(1, 0)


def test_what_is_found_and_held_by_nobody_needs_free_blocks() -> None:
    cache = KVCache(10, block_size=4)
    used(cache, "a", 3)
    hit = cache.find(*NO_PREFIX, "a", 21)
    assert cache.num_needed(NO_PREFIX[0], "a", hit, 21) == 6
    cache.hold(SHARED, 2, "b", Hit(0, 0))
    hit = cache.find(SHARED, 2, "c", 21)
    assert (hit, cache.num_needed(SHARED, "c", hit, 21)) == (Hit(2, 0), 4)


def test_pinned_blocks_stay_until_they_are_unpinned() -> None:
    cache = KVCache(6, block_size=4)
    cache.hold(*NO_PREFIX, "a", Hit(0, 0))
    cache.allocate(3)
    cache.pin("a", 2, 1)
    assert cache.num_free == 4
    cache.allocate(4)
    assert found(cache, "a") == 2
    cache.unpin(NO_PREFIX[0], "a")
    cache.allocate(2)
    assert (found(cache, "a"), cache.num_free) == (0, 0)
