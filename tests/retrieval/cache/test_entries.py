import tracemalloc
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.loop.types import Passage
from searchr1.retrieval.cache.store import Entry, Failure, pack, unpack

MAX = 10_000
PASSAGE = Passage("id", '"Mali"', "Its capital is Bamako.", "https://a.example", 1.5)
ENTRY = Entry(1_700_000_000.0, "tavily", (PASSAGE, Passage("", "t", "")))

text = st.text(st.characters(exclude_categories=["Cs"]))
passages = st.builds(
    Passage, text, text, text, st.none() | text, st.none() | st.floats(allow_nan=False, allow_infinity=False)
)


def packed(entry: Entry | Failure = ENTRY, *, compress_over_bytes: int = 100_000) -> bytes:
    data = pack(entry, max_bytes=MAX, compress_over_bytes=compress_over_bytes)
    assert data is not None
    return data


def framed(body: bytes, form: bytes = b"p") -> bytes:
    return b"SR1" + form + zlib.crc32(body).to_bytes(4, "big") + body


@given(st.tuples(st.floats(0, 1e11), text, st.lists(passages, max_size=4).map(tuple)), st.integers(0, 500))
def test_an_entry_comes_back_as_it_was(values: tuple[float, str, tuple[Passage, ...]], over: int) -> None:
    entry = Entry(*values)
    data = pack(entry, max_bytes=1_000_000, compress_over_bytes=over)
    assert data is not None
    assert unpack(data, Entry, max_bytes=1_000_000) == entry


@given(st.binary(max_size=300))
def test_foreign_bytes_are_no_entry(data: bytes) -> None:
    assert unpack(data, Entry, max_bytes=MAX) is None
    assert unpack(framed(data, b"z"), Entry, max_bytes=MAX) is None


@pytest.mark.parametrize("over", [0, 100_000])
def test_damage_anywhere_makes_an_entry_none(over: int) -> None:
    data = packed(compress_over_bytes=over)
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        assert unpack(bytes(damaged), Entry, max_bytes=MAX) is None
        assert unpack(data[:position], Entry, max_bytes=MAX) is None


def test_a_body_that_inflates_beyond_the_bound_is_none() -> None:
    bomb = zlib.compress(b"\x93" + bytes(50_000_000), 9)
    data = framed(bomb, b"z")
    tracemalloc.start()
    try:
        assert unpack(data, Entry, max_bytes=MAX) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_more_after_the_deflated_body_is_none() -> None:
    body = zlib.compress(msgspec.msgpack.encode(ENTRY))
    assert unpack(framed(body, b"z"), Entry, max_bytes=MAX) == ENTRY
    assert unpack(framed(body + b"more", b"z"), Entry, max_bytes=MAX) is None


@pytest.mark.parametrize(
    "value",
    [
        [float("nan"), "p", []],
        [float("inf"), "p", []],
        [1.0, "p", [{"id": "x"}]],
        [1.0, "p", [{"id": 1, "title": "t", "text": "t"}]],
        [1.0, None, []],
        ["1", "p", []],
        {"stored_at_s": 1.0},
        [1.0],
        None,
    ],
)
def test_other_shapes_are_no_entry(value: object) -> None:
    assert unpack(framed(msgspec.msgpack.encode(value)), Entry, max_bytes=MAX) is None


def test_text_that_is_not_utf_8_is_no_entry() -> None:
    assert unpack(framed(b"\x93\xcb" + bytes(8) + b"\xa1\xff\x90"), Entry, max_bytes=MAX) is None


def test_what_is_too_large_is_not_packed() -> None:
    body = msgspec.msgpack.encode(ENTRY)
    assert pack(ENTRY, max_bytes=len(body), compress_over_bytes=0) is not None
    assert pack(ENTRY, max_bytes=len(body) - 1, compress_over_bytes=0) is None
    assert unpack(packed(), Entry, max_bytes=len(body) - 1) is None


def test_lone_surrogates_are_not_packed() -> None:
    assert pack(Entry(1.0, "p", (Passage("", "\ud800", ""),)), max_bytes=MAX, compress_over_bytes=0) is None


def test_large_entries_are_deflated() -> None:
    entry = Entry(1.0, "p", (Passage("", "t", "word " * 1000),))
    assert len(packed(entry, compress_over_bytes=1024)) < 200
    assert len(packed(entry, compress_over_bytes=10_000)) > 5000


def test_a_failure_is_no_entry_and_comes_back_as_it_was() -> None:
    failure = Failure("rate_limited", "slow down", 2.5, "tavily")
    assert unpack(packed(failure), Failure, max_bytes=MAX) == failure
    assert unpack(packed(failure), Entry, max_bytes=MAX) is None
