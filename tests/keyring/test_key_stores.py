"""Keys in a file and in Redis: the contract of both, and how each of them breaks."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from searchr1.keyring.key_place import KeyPlace
from searchr1.keyring.key_store import KeyStore, KeysUnreadableError, UnknownKeyError
from searchr1.keyring.opening import open_keys
from searchr1.keyring.redis_keys import KEY
from searchr1.keyring.stored_key import StoredKey, made_key
from searchr1.keyring.usage import MemoryUsage, RedisUsage, Usage, UsageError, UsageStore
from searchr1.redis_client import open_redis
from tests.support.redis_server import RedisServer, run_redis

NOW = 1_800_000_000


def new_key(name: str = "one") -> StoredKey:
    return made_key(name, now=NOW)[1]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with run_redis() as server:
        yield server


@asynccontextmanager
async def opened(place: KeyPlace) -> AsyncIterator[KeyStore]:
    store = open_keys(place)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "made" / "keys.json"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def names_beside(path: Path) -> set[str]:
    return {one.name for one in path.parent.iterdir()}


def break_off(path: Path) -> None:
    path.write_text("{")


def make_link(link: Path, target: Path) -> None:
    link.parent.mkdir(parents=True)
    link.symlink_to(target)


def is_link(path: Path) -> bool:
    return path.is_symlink()


def text_of(path: Path) -> str:
    return path.read_text()


async def holds_the_contract(place: KeyPlace) -> None:
    first, second = new_key("first"), new_key("second")
    async with opened(place) as store, opened(place) as other:
        await store.add(first)
        reading = await other.read()
        assert reading is not None
        assert list(reading.keys) == [first]
        assert await other.read(reading.mark) is None
        await store.add(second)
        changed = await other.read(reading.mark)
        assert changed is not None
        assert {key.id for key in changed.keys} == {first.id, second.id}
        revoked = await store.revoke(first.id, now=NOW + 5)
        assert revoked.revoked_at == NOW + 5
        assert await store.revoke(first.id, now=NOW + 9) == revoked
        again = await other.read(changed.mark)
        assert again is not None
        assert {key.id: key.revoked_at for key in again.keys} == {first.id: NOW + 5, second.id: None}
        for unknown in ("nope", "", ":mark", first.id.upper()):
            with pytest.raises(UnknownKeyError):
                await store.revoke(unknown, now=NOW)
        many = [new_key(str(number)) for number in range(12)]
        await asyncio.gather(*(one.add(key) for one, key in zip((store, other) * 6, many, strict=True)))
        whole = await store.read()
        assert whole is not None
        assert len(whole.keys) == 14


async def test_the_contract_in_a_file(key_file: Path) -> None:
    await holds_the_contract(KeyPlace(file=key_file))
    assert mode_of(key_file) == 0o600
    assert names_beside(key_file) == {"keys.json", ".keys.json.lock"}


async def test_the_contract_in_redis(redis: RedisServer) -> None:
    await holds_the_contract(KeyPlace(redis_url=redis.url))


async def test_a_file_that_is_replaced_keeps_its_mode(key_file: Path) -> None:
    async with opened(KeyPlace(file=key_file)) as store:
        await store.add(new_key())
        set_mode(key_file, 0o640)
        await store.add(new_key())
    assert mode_of(key_file) == 0o640


@pytest.mark.parametrize("known_as", ["link", "target"])
async def test_a_link_stays_and_what_it_leads_to_is_changed(key_file: Path, known_as: str) -> None:
    link = key_file.parent.parent / "linked" / "keys.json"
    make_link(link, key_file)
    key = new_key()
    async with opened(KeyPlace(file=link)) as store, opened(KeyPlace(file=key_file)) as other:
        await store.add(key)
        await (store if known_as == "link" else other).revoke(key.id, now=NOW)
        for one in (store, other):
            reading = await one.read()
            assert reading is not None
            assert [each.revoked_at for each in reading.keys] == [NOW]
    assert is_link(link)
    assert names_beside(link) == {"keys.json"}
    assert names_beside(key_file) == {"keys.json", ".keys.json.lock"}


async def test_an_id_that_may_hold_a_secret_is_not_quoted(key_file: Path, redis: RedisServer) -> None:
    text, key = made_key("one", now=NOW)
    secret = text.rpartition("_")[2]
    for place in (KeyPlace(file=key_file), KeyPlace(redis_url=redis.url)):
        async with opened(place) as store:
            await store.add(key)
            for given in (text, text.upper(), text[:-1], f" {text}", secret, f"sr1_{secret[:9]}"):
                with pytest.raises(UnknownKeyError) as caught:
                    await store.revoke(given, now=NOW)
                assert secret[:5].lower() not in str(caught.value).lower()
            with pytest.raises(UnknownKeyError, match="no key has the id 'nope'"):
                await store.revoke("nope", now=NOW)


def _twice(path: Path) -> None:
    text = path.read_text("utf-8")
    record = text[text.index("[") + 1 : text.rindex("]")]
    path.write_text(text.replace(record, f"{record},{record}"), "utf-8")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


BROKEN: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "half": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "no JSON": lambda path: path.write_bytes(b"\xff\xfe"),
    "deep": lambda path: path.write_text('{"keys":' + "[" * 100_000),
    "newer": lambda path: path.write_text('{"version": 2, "keys": []}'),
    "older": lambda path: path.write_text('{"version": 0, "keys": []}'),
    "more": lambda path: path.write_text('{"version": 1, "keys": [], "open": true}'),
    "a key twice": _twice,
    "anyone's": lambda path: path.chmod(0o666),
    "a folder": _folder,
}


@pytest.mark.parametrize("break_it", BROKEN.values(), ids=BROKEN)
async def test_a_broken_file_is_refused_and_quotes_no_record(
    key_file: Path, break_it: Callable[[Path], object]
) -> None:
    key = new_key()
    async with opened(KeyPlace(file=key_file)) as store:
        await store.add(key)
        before = await store.read()
        assert before is not None
        break_it(key_file)
        for since in (None, before.mark):
            with pytest.raises(KeysUnreadableError) as caught:
                await store.read(since)
            assert str(key_file) in str(caught.value)
            assert key.digest not in str(caught.value)


async def test_a_broken_file_is_not_written_over(key_file: Path) -> None:
    async with opened(KeyPlace(file=key_file)) as store:
        await store.add(new_key())
        break_off(key_file)
        with pytest.raises(KeysUnreadableError):
            await store.add(new_key())
    assert text_of(key_file) == "{"


async def test_a_record_in_redis_that_can_not_be_read_is_left_out_and_told_of(redis: RedisServer) -> None:
    good, bad = new_key("good"), new_key("bad")
    with redis.client() as client:
        client.flushall()
        async with opened(KeyPlace(redis_url=redis.url)) as store:
            await store.add(good)
            await store.add(bad)
            for record in (b"{", b'{"id": "x"}', client.hget(KEY, good.id)):
                client.hset(KEY, bad.id, record)
                reading = await store.read()
                assert reading is not None
                assert list(reading.keys) == [good]
                [fault] = reading.faults
                assert bad.id in fault
                assert good.digest not in fault


async def test_keys_that_redis_has_lost_are_not_taken_for_revoked(redis: RedisServer) -> None:
    with redis.client() as client:
        client.flushall()
        async with opened(KeyPlace(redis_url=redis.url)) as store:
            empty = await store.read()
            assert empty is not None
            assert not empty.keys
            assert await store.read(empty.mark) is None
            await store.add(new_key())
            reading = await store.read(empty.mark)
            assert reading is not None
            client.flushall()
            with pytest.raises(KeysUnreadableError, match="gone"):
                await store.read(reading.mark)


async def test_a_redis_that_is_not_there_is_told_without_its_password() -> None:
    async with opened(KeyPlace(redis_url="redis://:hunter2@127.0.0.1:9")) as store:
        with pytest.raises(KeysUnreadableError) as caught:
            await store.read()
        assert "hunter2" not in str(caught.value) + repr(KeyPlace(redis_url="redis://:hunter2@h"))


async def counts(one: UsageStore, other: UsageStore) -> None:
    await one.add({"a": Usage(requests=1, last_used_at=NOW), "b": Usage(runs=1, tokens_in=10, tokens_out=5)})
    await other.add({"a": Usage(requests=2, searches=3, last_used_at=NOW - 1)})
    await other.add({})
    assert await one.read() == {
        "a": Usage(requests=3, searches=3, last_used_at=NOW),
        "b": Usage(runs=1, tokens_in=10, tokens_out=5),
    }


async def test_usage_adds_up_in_memory() -> None:
    usage = MemoryUsage()
    await counts(usage, usage)


async def test_usage_adds_up_in_redis(redis: RedisServer) -> None:
    client = open_redis(redis.url)
    try:
        await counts(RedisUsage(client), RedisUsage(client))
        with redis.client() as plain:
            plain.hset("searchr1:usage", mapping={"c new_count": 1, "c": 2, "c runs": "x"})
        assert set(await RedisUsage(client).read()) == {"a", "b"}
    finally:
        await client.aclose()
    gone = open_redis("redis://127.0.0.1:9")
    try:
        with pytest.raises(UsageError):
            await RedisUsage(gone).read()
    finally:
        await gone.aclose()
